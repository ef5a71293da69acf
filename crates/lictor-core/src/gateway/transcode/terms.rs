//! What the configuration says of a translation.

use http::{Method, StatusCode};

/// How a route's requests are translated.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Services whose `google.api.http` options are routes.
    pub services: Vec<String>,
    /// Routes of the configuration's own.
    pub map: Vec<Mapped>,
    /// Fields are named in answers as in the file (`page_size`), not as JSON's are (`pageSize`).
    pub proto_names: bool,
    /// Answers have also the fields that are not set.
    pub defaults: bool,
    /// The longest message, and the longest body, in bytes.
    pub message_max: usize,
}

/// A request that is for a method.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapped {
    /// As it comes.
    pub method: Method,
    /// `/users/{id}`
    pub template: String,
    /// `users.Users/GetUser`
    pub call: String,
    /// The field that the body is; `*` is the whole message, and empty none. `None`: by the method.
    pub body: Option<String>,
    /// The field that the answer is; `None`: it is the whole message.
    pub response_body: Option<String>,
    /// What success is.
    pub status: StatusCode,
}

impl Terms {
    /// Of a message, and of a body.
    pub const MESSAGE_MAX: usize = 1 << 20;
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            map: Vec::new(),
            proto_names: false,
            defaults: false,
            message_max: Self::MESSAGE_MAX,
        }
    }
}
