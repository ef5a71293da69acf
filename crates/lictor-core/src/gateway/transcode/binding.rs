//! One method, as one template leads to it: what a request says becomes its message.

use std::collections::HashSet;

use bytes::Bytes;
use http::StatusCode;
use prost_reflect::{DynamicMessage, FieldDescriptor, MethodDescriptor, Value};
use serde_json::Value as Json;

use super::super::grpc::framed;
use super::answer::Answers;
use super::fields::{self, short};
use super::json;
use super::template::{Template, decode};

/// A method, and how requests are for it.
#[derive(Debug)]
pub struct Binding {
    /// `/library.v1.Library/GetShelf`
    pub path: Box<str>,
    /// The service answers with a stream of messages.
    pub is_stream: bool,
    /// What success is.
    pub status: StatusCode,
    /// How its answers are written.
    pub answers: Answers,
    pub(super) method: MethodDescriptor,
    pub(super) template: Template,
    /// Whose values the template's variables are.
    pub(super) variables: Vec<fields::Path>,
    pub(super) body: Body,
}

/// What a request's body is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    /// There is none.
    None,
    /// All that the path does not say.
    Whole,
    /// One field.
    Field(FieldDescriptor),
}

/// A request, but for its body.
#[derive(Debug)]
pub struct Call {
    said: Vec<(fields::Path, Value)>,
}

impl Binding {
    /// Whether a request has a body.
    pub fn has_body(&self) -> bool {
        self.body != Body::None
    }

    /// Reads what the path and the query say; in words what they must not.
    pub fn call(&self, segments: &[&str], query: Option<&str>) -> Result<Call, String> {
        let mut said: Vec<(fields::Path, Value)> = Vec::new();
        for (path, text) in self.variables.iter().zip(self.template.values(segments)) {
            let value = path.last().map(|field| fields::value(field, &text)).transpose()?;
            said.extend(value.map(|value| (path.clone(), value)));
        }
        let mut seen: HashSet<Vec<u32>> = self.variables.iter().map(|path| numbers(path)).collect();
        for (name, text) in pairs(query.unwrap_or_default())? {
            if self.body == Body::Whole {
                return Err(format!("there is no parameter `{}`: the body says it all", short(&name)));
            }
            let path = fields::find(&self.method.input(), &name)?;
            let Some((first, last)) = path.first().zip(path.last()) else { continue };
            if matches!(&self.body, Body::Field(field) if field == first) {
                return Err(format!("`{}` is for the body to say", short(&name)));
            }
            if !seen.insert(numbers(&path)) && !last.is_list() {
                return Err(format!("`{}` is said twice", short(&name)));
            }
            let value = fields::value(last, &text)?;
            said.push((path, value));
        }
        Ok(Call { said })
    }

    /// The message as it goes on the wire; in words what the body must not say.
    pub fn message(&self, call: Call, body: &[u8]) -> Result<Bytes, String> {
        let is_nothing = body.trim_ascii().is_empty();
        let empty = || DynamicMessage::new(self.method.input());
        let mut message = match &self.body {
            _ if is_nothing => empty(),
            Body::None => return Err("this method takes no body".to_owned()),
            Body::Whole => json::message(&self.method.input(), json::parse(body)?)?,
            Body::Field(field) => match json::parse(body)? {
                Json::Null => empty(),
                value => json::message_with(field, value)?,
            },
        };
        for (path, value) in call.said {
            fields::put(&mut message, &path, value)?;
        }
        Ok(framed(&message))
    }
}

fn numbers(path: &[FieldDescriptor]) -> Vec<u32> {
    path.iter().map(FieldDescriptor::number).collect()
}

/// The parameters of a query, decoded as forms are (`+` is a space).
fn pairs(query: &str) -> Result<Vec<(String, String)>, String> {
    let plain = |text: &str| {
        let decoded = decode(&text.replace('+', " "), false).into_owned();
        let is_clear = !decoded.contains(char::REPLACEMENT_CHARACTER);
        if is_clear { Ok(decoded) } else { Err(format!("the parameter `{}` is not UTF-8", short(text))) }
    };
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Ok((plain(name)?, plain(value)?))
    };
    query.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}
