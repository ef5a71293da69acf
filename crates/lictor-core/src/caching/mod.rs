//! What a shared cache may do with an answer (RFC 9111): pure, with heads and times as arguments. No other rule about it
//! stands elsewhere; what is kept where, and who waits for whom, is the data plane's.
//!
//! | question | section | here |
//! |---|---|---|
//! | may the cache have a say in this request | 2, 4 | [`Question::of`] |
//! | which kept answers does it mean | 2, 4.1 | [`Question::key`], [`Head::answers`] |
//! | may this answer be kept, and on what terms | 3, 3.5, 4.2 | [`Head::keep`] |
//! | may it be used now | 4, 4.2.4, 5.2.1 | [`Head::usable`], [`Head::usable_instead`] |
//! | how is it validated, and what does a 304 change | 4.3 | [`Head::conditions`], [`Head::freshened`] |
//! | may the client be told 304 | 4.3.2 | [`Head::is_what_the_client_has`] |
//! | which kept answers does a request make invalid | 4.3.5, 4.4 | [`spoils`], [`also_spoiled`], [`Head::is_contradicted`] |

mod conditions;
mod dates;
mod directives;
mod head;
mod invalidation;
#[cfg(any(fuzzing, test))]
pub mod laws;
mod question;
mod terms;

#[cfg(test)]
mod tests;

pub use head::Head;
pub use invalidation::{also_spoiled, spoils};
pub use question::{Key, Place, Question, tells_who};
pub use terms::{Exchanged, Keeper, Use};
