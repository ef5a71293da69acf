//! What the operating system is asked and may take its time to say: the addresses of a name, a connection to one of
//! them, whether a file is still what it was, a time that has come. Whoever asks waits no longer than he wants, and for nobody
//! else's name, address or file.
//!
//! | who | asks |
//! |---|---|
//! | whoever has a name | [`names::look_up`] |
//! | whoever has addresses of one peer | [`dial::connect`] |
//! | whoever has read a file | [`files::follow`], for when to read it again |
//! | whoever has something that others end | [`boot::Moment`] and [`boot::Alarm`], by a clock that no suspension stops |

pub mod boot;
pub mod dial;
pub mod files;
pub mod names;
