//! Where the configuration comes from.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use lictor_config::{Consul, Environment, Loaded, Sources, TEXT_MAX, Text};

/// Where it is looked for when nobody says.
const USUAL_PLACES: [&str; 4] = ["lictor.yaml", "lictor.yml", "/etc/lictor/lictor.yaml", "/etc/lictor/lictor.yml"];

/// Where the configuration comes from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Configured {
    /// The file; default: LICTOR_CONFIG, ./lictor.yaml, /etc/lictor/lictor.yaml, or the environment alone.
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
    /// Over everything else: `--set defaults.timeout=5s`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Configured {
    /// Reads and checks it. Mistakes in it are a `Report` as the error.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        Ok(self.sources()?.load()?)
    }

    /// Reads it.
    pub(crate) fn sources(&self) -> anyhow::Result<Sources> {
        let env = Environment::process();
        Ok(Sources { file: self.read(&env)?, kv: None, flags: self.flags()?, env })
    }

    /// Where Consul is, for commands that look at no service of ours: a file need not be there, nor good.
    pub(crate) fn consul(&self) -> anyhow::Result<Consul> {
        let mut sources = self.sources()?;
        if let Ok(loaded) = sources.load()
            && loaded.config.consul.address.is_some()
        {
            return Ok(loaded.config.consul);
        }
        sources.file = None;
        sources
            .flags
            .extend([("registration", "off"), ("outbound.allow", "*")].map(|(key, it)| (key.into(), it.into())));
        Ok(sources.load()?.config.consul)
    }

    /// The same with another file.
    pub(crate) fn with(&self, file: &Path) -> Self {
        Self { config: Some(file.to_owned()), ..self.clone() }
    }

    /// The file's name, or that there is none.
    pub(crate) fn source(&self) -> String {
        let path = self.path(&Environment::process());
        path.map_or_else(|| "environment".to_owned(), |path| path.to_string_lossy().into_owned())
    }

    fn path(&self, env: &Environment) -> Option<PathBuf> {
        let named = self.config.clone().or_else(|| env.var("LICTOR_CONFIG").map(PathBuf::from));
        named.or_else(|| USUAL_PLACES.iter().map(PathBuf::from).find(|path| path.is_file()))
    }

    fn read(&self, env: &Environment) -> anyhow::Result<Option<Text>> {
        let Some(path) = self.path(env) else { return Ok(None) };
        let text = text(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(Text { name: path.to_string_lossy().into_owned(), text }))
    }

    fn flags(&self) -> anyhow::Result<Vec<(String, String)>> {
        let pairs = self.set.iter().map(|flag| match flag.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => bail!("--set takes KEY=VALUE, not `{flag}`"),
        });
        pairs.collect()
    }
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
}
