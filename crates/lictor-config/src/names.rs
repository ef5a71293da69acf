//! Names as lists have them: whole, or how they begin.

use std::collections::HashSet;

/// Names, and how names begin (`pay-*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    whole: HashSet<String>,
    begins: HashSet<String>,
}

impl Names {
    /// Whether it is one of them, or begins as some of them do.
    pub fn has(&self, name: &str) -> bool {
        let mut begins = (0..=name.len()).filter_map(|end| name.get(..end));
        self.whole.contains(name) || (!self.begins.is_empty() && begins.any(|begin| self.begins.contains(begin)))
    }
}

impl<S: AsRef<str>> FromIterator<S> for Names {
    fn from_iter<I: IntoIterator<Item = S>>(patterns: I) -> Self {
        let mut names = Self::default();
        for pattern in patterns {
            match pattern.as_ref().strip_suffix('*') {
                Some(begin) => names.begins.insert(begin.to_owned()),
                None => names.whole.insert(pattern.as_ref().to_owned()),
            };
        }
        names
    }
}
