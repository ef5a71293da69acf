//! Every crate's tests replay the inputs that are kept for its targets.

/// Each of them keeps the law; none at all would be a law that nobody tries.
pub(super) fn replay(target: &str, law: fn(&[u8])) {
    let folder = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty(), "{folder} is empty");
    for file in &files {
        law(&std::fs::read(file).unwrap());
    }
}
