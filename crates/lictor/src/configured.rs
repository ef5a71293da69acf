//! Where the configuration comes from.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use lictor_config::{Consul, Environment, Loaded, Sources, TEXT_MAX, Text};

/// Where it is looked for when nobody says.
const USUAL_PLACES: [&str; 4] = ["lictor.yaml", "lictor.yml", "/etc/lictor/lictor.yaml", "/etc/lictor/lictor.yml"];

/// As a file.
pub(crate) const STDIN: &str = "/dev/stdin";

/// Where the configuration comes from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Configured {
    /// The file; default: LICTOR_CONFIG, ./lictor.yaml, /etc/lictor/lictor.yaml, or the environment alone.
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
    /// Over everything else: `--set defaults.timeout=5s`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// This is a developer's machine: a `service_token` out of a tutorial is accepted, with a warning. The same as LICTOR_DEV=1.
    #[arg(long)]
    dev: bool,
    /// The file beside it, where the environment does not say which.
    #[arg(skip)]
    staged: Option<PathBuf>,
}

impl Configured {
    /// Reads and checks it. Mistakes in it are a `Report` as the error.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        Ok(self.sources()?.load()?)
    }

    /// Reads it.
    pub(crate) fn sources(&self) -> anyhow::Result<Sources> {
        let mut env = Environment::process();
        let [file, staged] = self.read(&env)?;
        if self.dev {
            env.vars.insert("LICTOR_DEV".to_owned(), "1".to_owned());
        }
        Ok(Sources { file, staged, flags: self.flags()?, env, ..Sources::default() })
    }

    /// Its files, whether or not they are there: the file, and the one beside it of the environment that this process
    /// runs in.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let env = Environment::process();
        let path = self.path(&env);
        let staged = self.beside(path.as_deref(), &env);
        path.into_iter().chain(staged).collect()
    }

    /// Where Consul is, for commands that look at no service of ours: a file need not be there, nor good.
    pub(crate) fn consul(&self) -> anyhow::Result<Consul> {
        let mut sources = self.sources()?;
        if let Ok(loaded) = sources.load()
            && loaded.config.consul.address.is_some()
        {
            return Ok(loaded.config.consul);
        }
        (sources.file, sources.staged) = (None, None);
        sources
            .flags
            .extend([("registration", "off"), ("outbound.allow", "*")].map(|(key, it)| (key.into(), it.into())));
        Ok(sources.load()?.config.consul)
    }

    /// The same with a file beside it.
    pub(crate) fn staged_with(&self, file: &Path) -> Self {
        Self { staged: Some(file.to_owned()), ..self.clone() }
    }

    /// The same with another file.
    pub(crate) fn with(&self, file: &Path) -> Self {
        Self { config: Some(file.to_owned()), ..self.clone() }
    }

    /// The names of its files, or that there are none.
    pub(crate) fn source(&self) -> String {
        let files = self.files();
        let (file, staged) = files.split_at(files.len().min(1));
        let staged = staged.iter().filter(|path| path.is_file());
        let names: Vec<_> = file.iter().chain(staged).map(|path| path.to_string_lossy()).collect();
        if names.is_empty() { "environment".to_owned() } else { names.join(", ") }
    }

    fn path(&self, env: &Environment) -> Option<PathBuf> {
        let named = self.config.clone().or_else(|| env.var("LICTOR_CONFIG").map(PathBuf::from));
        named.or_else(|| USUAL_PLACES.iter().map(PathBuf::from).find(|path| path.is_file()))
    }

    fn beside(&self, file: Option<&Path>, env: &Environment) -> Option<PathBuf> {
        self.staged.clone().or_else(|| staged(file, env))
    }

    /// The file, and the one beside it of the environment that this process runs in, where it is there.
    fn read(&self, env: &Environment) -> anyhow::Result<[Option<Text>; 2]> {
        let path = self.path(env);
        let staged = self.beside(path.as_deref(), env).filter(|path| path.exists());
        Ok([path.as_deref().map(read).transpose()?, staged.as_deref().map(read).transpose()?])
    }

    fn flags(&self) -> anyhow::Result<Vec<(String, String)>> {
        let pairs = self.set.iter().map(|flag| match flag.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => bail!("--set takes KEY=VALUE, not `{flag}`"),
        });
        pairs.collect()
    }
}

/// `lictor.production.yaml` beside `lictor.yaml`.
fn staged(file: Option<&Path>, env: &Environment) -> Option<PathBuf> {
    let (file, (_, stage)) = (file?, env.stage()?);
    let (stem, kind) = (file.file_stem()?.to_str()?, file.extension()?.to_str()?);
    Some(file.with_file_name(format!("{stem}.{stage}.{kind}")))
}

fn read(path: &Path) -> anyhow::Result<Text> {
    let text = text(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.to_string_lossy().into_owned();
    Ok(Text { name: if path == Path::new(STDIN) { "standard input".to_owned() } else { name }, text })
}

/// One byte more than may be read says enough of what has no end, such as a device.
fn text(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(TEXT_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > TEXT_MAX {
        bail!("it is too long: {TEXT_MAX} bytes are read");
    }
    String::from_utf8(bytes).context("it is not UTF-8 text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_without_a_value_and_a_file_that_is_not_there_are_named() {
        let flag = Configured { set: vec!["defaults.timeout".to_owned()], ..Configured::default() };
        assert_eq!(flag.flags().unwrap_err().to_string(), "--set takes KEY=VALUE, not `defaults.timeout`");
        let file = Configured { config: Some("/no/such.yaml".into()), ..Configured::default() };
        assert!(file.load().unwrap_err().to_string().contains("cannot read /no/such.yaml"));
        assert_eq!(file.source(), "/no/such.yaml");
    }

    #[test]
    fn the_file_of_an_environment_is_beside_the_file() {
        let of = |file: &str, vars: &[(&str, &str)]| {
            let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let env = Environment { vars, ..Environment::default() };
            staged(Some(Path::new(file)), &env).map(|path| path.to_str().unwrap().to_owned())
        };
        let (file, beside) =
            ("/etc/lictor/lictor.yaml", |stage: &str| Some(format!("/etc/lictor/lictor.{stage}.yaml")));
        for (vars, expected) in [
            (&[][..], None),
            (&[("ENVIRONMENT", "production")], beside("production")),
            (&[("APP_ENV", "local")], beside("local")),
            (&[("NODE_ENV", " test ")], beside("test")),
            (&[("NODE_ENV", "a"), ("APP_ENV", "b"), ("ENVIRONMENT", "c")], beside("c")),
            (&[("NODE_ENV", "a"), ("APP_ENV", ""), ("ENVIRONMENT", "../../tmp/x")], beside("a")),
            (&[("ENVIRONMENT", "a.b")], None),
            (&[("ENVIRONMENT", "a/b")], None),
            (&[("ENVIRONMENT", "..")], None),
            (&[("ENVIRONMENT", "prod\u{FFFD}")], None),
            (&[("ENVIRONMENT", "pr\u{f6}d")], None),
            (&[("ENVIRONMENT", "Production_EU-1")], beside("Production_EU-1")),
        ] {
            assert_eq!(of(file, vars), expected, "{vars:?}");
        }
        let production = [("ENVIRONMENT", "production")];
        assert_eq!(of("order.yml", &production).as_deref(), Some("order.production.yml"));
        assert_eq!(of("/dev/stdin", &production), None, "a file without a kind has none beside it");
    }
}
