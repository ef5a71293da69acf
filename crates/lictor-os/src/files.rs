//! Whether files are still what they were, and reading them where a file that hangs holds up nobody.
//!
//! [`Look`] is the one rule of when a file has changed; [`follow`] and [`follow_settled`] look each second, on one of
//! tokio's threads for blocking work. Renames, links that are swapped (as Kubernetes does it) and edits in place are all seen: what counts is
//! the file that a name leads to now. A look that hangs is followed by no other of the same files.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;

/// Files are looked at this often.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How files are at one look: two looks that end the same saw the same files with the same content, as far as a file
/// system tells.
#[derive(Debug, Default)]
pub struct Look(DefaultHasher);

impl Look {
    /// Symbolic links are followed: what counts is what they lead to.
    pub fn at(&mut self, path: &Path) {
        path.hash(&mut self.0);
        let file = std::fs::metadata(path).ok();
        // `mtime` may be that of the original of a copy; `ctime` nobody can set.
        let seen = file.map(|file| {
            let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
            (file.dev(), file.ino(), file.size(), times)
        });
        seen.hash(&mut self.0);
    }

    /// A folder, and the files in it: those may be written in place, or be links to files elsewhere.
    pub fn below(&mut self, folder: &Path) {
        self.at(folder);
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort_unstable();
        for path in &paths {
            self.at(path);
        }
    }

    /// What was seen, to compare with another look.
    pub fn end(&self) -> u64 {
        self.0.finish()
    }
}

/// Looks each second, from now on and for as long as somebody listens. The receiver changes when a look ends otherwise
/// than the one before, the first look against `before`: what was seen before the files were read, if they were.
pub fn follow(before: Option<u64>, look: impl FnMut(&mut Look) + Send + 'static) -> watch::Receiver<u64> {
    told(before.unwrap_or_default(), LOOK_EVERY, look, |_| true)
}

/// The same, but of a change is told when the look after it ends alike: what is still being written is left alone.
pub fn follow_settled(before: u64, look: impl FnMut(&mut Look) + Send + 'static) -> watch::Receiver<u64> {
    told(before, LOOK_EVERY, look, settling(before))
}

/// Whether a look ended as the one before it did.
fn settling(mut last: u64) -> impl FnMut(u64) -> bool {
    move |now| std::mem::replace(&mut last, now) == now
}

/// Tells how a look ended, where that is to be heeded and is not what was told last.
fn told(
    before: u64,
    every: Duration,
    mut look: impl FnMut(&mut Look) + Send + 'static,
    mut is_heeded: impl FnMut(u64) -> bool + Send + 'static,
) -> watch::Receiver<u64> {
    let (seen, receiver) = watch::channel(before);
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !seen.is_closed() {
            tick.tick().await;
            let looking = spawn_blocking(move || {
                let mut now = Look::default();
                look(&mut now);
                (now.end(), look)
            });
            let Ok((now, again)) = looking.await else { return };
            look = again;
            if is_heeded(now) {
                seen.send_if_modified(|seen| std::mem::replace(seen, now) != now);
            }
        }
    });
    receiver
}

/// Reads text of at most so many bytes. It waits for the disk.
pub fn read(path: &Path, most: usize) -> io::Result<String> {
    let mut bytes = Vec::new();
    // One byte more says enough of what has no end, such as a device.
    File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is too long: {most} bytes are read")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// The same on a thread that may wait, for at most so long.
pub async fn read_within(path: PathBuf, most: usize, at_most: Duration) -> io::Result<String> {
    match tokio::time::timeout(at_most, spawn_blocking(move || read(&path, most))).await {
        Ok(Ok(read)) => read,
        Ok(Err(_)) => Err(io::Error::other("it could not be read")),
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("it cannot be read within {at_most:?}: it hangs")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, copy, create_dir, remove_file, rename, write};
    use std::os::unix::fs::symlink;

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[test]
    fn every_way_of_changing_a_file_is_seen() {
        let scratch = Scratch::new("look");
        let at = |name: &str| scratch.0.join(name);
        let (path, folder, linked) = (at("file"), at("folder"), at("link"));
        create_dir(&folder).unwrap();
        for (name, text) in [("file", "one"), ("1", "one"), ("2", "two")] {
            write(at(name), text).unwrap();
        }
        symlink(at("1"), &linked).unwrap();
        symlink(at("1"), folder.join("link")).unwrap();
        let look = || {
            let mut look = Look::default();
            look.at(&path);
            look.at(&linked);
            look.below(&folder);
            look.end()
        };
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        let swap = |link: &Path| {
            symlink(at("2"), at("draft")).unwrap();
            rename(at("draft"), link).unwrap();
        };
        let changes: [(&str, &dyn Fn()); 8] = [
            ("written in place", &|| write(&path, "other").unwrap()),
            ("of the same size", &|| write(&path, "anoth").unwrap()),
            ("renamed onto it, and no younger", &|| {
                copy(&path, at("draft")).unwrap();
                File::options().write(true).open(at("draft")).unwrap().set_modified(modified).unwrap();
                rename(at("draft"), &path).unwrap();
            }),
            ("its link leads elsewhere", &|| swap(&linked)),
            ("a link in the folder leads elsewhere", &|| swap(&folder.join("link"))),
            ("what a link in the folder leads to", &|| write(at("2"), "more of it").unwrap()),
            ("a file more in the folder", &|| write(folder.join("new"), "").unwrap()),
            ("it is gone", &|| remove_file(&path).unwrap()),
        ];
        for (what, change) in changes {
            let before = look();
            assert_eq!(before, look(), "nothing has changed before: {what}");
            change();
            assert_ne!(before, look(), "{what}");
        }
    }

    /// A folder that goes with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("lictor-os-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn who_follows_files_is_told_of_each_change_and_of_nothing_else() {
        let scratch = Scratch::new("follow");
        let path = scratch.0.join("file");
        write(&path, "one").unwrap();
        let (look, watched) = (
            |path: &Path| {
                let mut look = Look::default();
                look.at(path);
                look.end()
            },
            path.clone(),
        );
        let (looks, count) = (Arc::new(AtomicUsize::new(0)), Duration::from_secs(20));
        let counted = Arc::clone(&looks);
        let mut changes = follow(Some(look(&path)), move |look| {
            look.at(&watched);
            counted.fetch_add(1, SeqCst);
        });
        tokio::time::timeout(count, async {
            while looks.load(SeqCst) < 3 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert!(!changes.has_changed().unwrap(), "nothing has changed");
        write(&path, "two").unwrap();
        tokio::time::timeout(count, changes.changed()).await.unwrap().unwrap();
        assert_eq!(*changes.borrow(), look(&path));
    }

    #[test]
    fn of_what_is_still_written_nothing_is_told() {
        // How looks end, and of which is told: the same twice in a row, and other than what was told last.
        for (looks, expected) in [
            (&[0, 0, 0][..], &[][..]),
            (&[1, 1, 1], &[1]),
            (&[1, 2, 3, 4], &[]),
            (&[1, 2, 3, 3], &[3]),
            (&[1, 0, 0], &[]),
            (&[1, 1, 2, 1, 1], &[1]),
            (&[1, 1, 2, 2, 0, 0], &[1, 2, 0]),
        ] {
            let (mut is_settled, mut last) = (settling(0), 0);
            let told = looks.iter().filter(|now| is_settled(**now) && std::mem::replace(&mut last, **now) != **now);
            assert_eq!(told.copied().collect::<Vec<u64>>(), expected, "{looks:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_written_for_a_while_is_told_of_once_it_is_whole() {
        let scratch = Scratch::new("settled");
        let path = scratch.0.join("file");
        write(&path, "one").unwrap();
        let look = |path: &Path| {
            let mut look = Look::default();
            look.at(path);
            look.end()
        };
        let (before, watched, mut pieces) = (look(&path), path.clone(), 0);
        let every = Duration::from_millis(1);
        // It grows as fast as it is looked at, until it is whole.
        let grows = move |look: &mut Look| {
            pieces += 1;
            if pieces < 20 {
                write(&watched, "piece ".repeat(pieces)).unwrap();
            }
            look.at(&watched);
        };
        let mut changes = told(before, every, grows, settling(before));
        tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
        assert_eq!(*changes.borrow_and_update(), look(&path));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "piece ".repeat(19));
    }

    #[tokio::test]
    async fn a_file_that_hangs_or_has_no_end_is_given_up() {
        let scratch = Scratch::new("read");
        let (pipe, text) = (scratch.0.join("pipe"), scratch.0.join("text"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        write(&text, "12345").unwrap();
        let within = Duration::from_millis(50);
        let kind = |read: io::Result<String>| read.unwrap_err().kind();
        assert_eq!(kind(read_within(pipe.clone(), 5, within).await), io::ErrorKind::TimedOut);
        assert_eq!(read_within(text.clone(), 5, Duration::from_secs(20)).await.unwrap(), "12345");
        assert_eq!(kind(read(&text, 4)), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(read(Path::new("/dev/zero"), 1 << 20)), io::ErrorKind::FileTooLarge);
        write(&text, b"\xff").unwrap();
        assert_eq!(kind(read(&text, 5)), io::ErrorKind::InvalidData);
        // Lets the thread go that reads the pipe.
        drop(File::options().write(true).open(&pipe).unwrap());
    }
}
