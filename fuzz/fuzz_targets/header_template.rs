#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lictor_core::fuzzing::header_template(bytes));
