//! The limit on open files: a proxy needs two for each request, and the usual soft limit of 1024 is for programs that
//! call `select`. Ours is raised to what the system allows; the application starts with what we were given.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit that this process was started with.
#[derive(Clone, Debug)]
pub(crate) struct OpenFiles(Rlimit);

impl OpenFiles {
    /// Raises the limit. Without success everything works as before, up to the old limit.
    pub(crate) fn raise() -> Self {
        let original = getrlimit(Resource::Nofile);
        set(Rlimit { current: original.maximum, maximum: original.maximum });
        Self(original)
    }

    /// Does something, such as starting a program, under the original limit. Files that are open stay open.
    pub(crate) fn lowered<T>(&self, work: impl FnOnce() -> T) -> T {
        set(self.0);
        let result = work();
        set(Rlimit { current: self.0.maximum, maximum: self.0.maximum });
        result
    }
}

fn set(limit: Rlimit) {
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_for_us_and_not_for_the_application() {
        let before = getrlimit(Resource::Nofile);
        let files = OpenFiles::raise();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
        assert_eq!(files.lowered(|| getrlimit(Resource::Nofile).current), before.current);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
