//! The limits of this process; the application starts with those that we were given.
//!
//! Open files: a proxy needs two for each request, and the usual soft limit of 1024 is for programs that call `select`. Ours
//! is raised to what the system allows. Core dumps: ours would hold tokens and keys, so there is none, as with Vault. The hard
//! limit stays: `prlimit --core=unlimited --pid` allows one again. The limit is one byte, not none: that is too short for a
//! file, and Linux gives a core to a handler (`kernel.core_pattern` with a pipe) whatever the limit, unless it is 1
//! (fs/coredump.c).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// In bytes.
const NO_CORE: u64 = 1;

/// The limits that this process was started with.
#[derive(Clone, Debug)]
pub(crate) struct ProcessLimits {
    open_files: Rlimit,
    core: Rlimit,
}

impl ProcessLimits {
    /// Sets ours. Without success everything works as before, under the old ones.
    pub(crate) fn set() -> Self {
        let original = Self { open_files: getrlimit(Resource::Nofile), core: getrlimit(Resource::Core) };
        original.set_ours();
        original
    }

    /// Does something, such as starting a program, under the original limits. Files that are open stay open.
    pub(crate) fn lifted<T>(&self, work: impl FnOnce() -> T) -> T {
        let _ = setrlimit(Resource::Nofile, self.open_files);
        let _ = setrlimit(Resource::Core, self.core);
        let result = work();
        self.set_ours();
        result
    }

    fn set_ours(&self) {
        let most = self.open_files.maximum;
        let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
        let core = self.core.maximum.map_or(NO_CORE, |most| most.min(NO_CORE));
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(core), maximum: self.core.maximum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_limits_are_not_the_applications() {
        let current = || [Resource::Nofile, Resource::Core].map(|resource| getrlimit(resource).current);
        let (before, most) = (current(), getrlimit(Resource::Nofile).maximum);
        let none = Some(getrlimit(Resource::Core).maximum.map_or(NO_CORE, |most| most.min(NO_CORE)));
        let limits = ProcessLimits::set();
        assert_eq!(current(), [most, none]);
        assert_eq!(limits.lifted(current), before);
        assert_eq!(current(), [most, none]);
    }
}
