//! Tells the program what it is built from: `LICTOR_COMMIT`, from whoever builds it, else what git says, else `unknown`.
//! The program sees it under another name: cargo sets these variables for tests too, and lictor reads `LICTOR_*`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=LICTOR_COMMIT");
    let given = std::env::var("LICTOR_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(from_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=BUILT_FROM={commit}");
}

fn from_git() -> Option<String> {
    let folder = git(&["rev-parse", "--absolute-git-dir"])?;
    // HEAD names the branch; the log has a new line for each commit on it. A file that is not there would run this always.
    for file in ["HEAD", "logs/HEAD"].map(|name| Path::new(&folder).join(name)).iter().filter(|file| file.is_file()) {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}
