//! The routes that a descriptor set and a configuration make.

use http::{Method, StatusCode};
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MethodDescriptor, SerializeOptions, ServiceDescriptor, Value,
};

use super::answer::Answers;
use super::binding::{Binding, Body};
use super::fields;
use super::template::Template;
use super::terms::{Mapped, Terms};
use super::tree::Tree;

/// More routes are no API's.
const ROUTES_MAX: usize = 4096;

/// Routes, and where each is.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) tree: Tree,
    pub(super) bindings: Vec<Binding>,
}

/// How one request is for a method, as either source says it.
struct Rule<'a> {
    /// `None`: any.
    method: Option<Method>,
    template: &'a str,
    body: &'a str,
    response_body: &'a str,
    status: StatusCode,
}

/// In words why there are none.
pub(super) fn build(pool: &DescriptorPool, terms: &Terms) -> Result<Built, String> {
    let mut built = Built::default();
    for name in &terms.services {
        let service = pool.get_service_by_name(name).ok_or_else(|| no_service(pool, name))?;
        built.annotated(pool, &service, terms)?;
    }
    for mapped in &terms.map {
        built.mapped(pool, mapped, terms)?;
    }
    Ok(built)
}

fn no_service(pool: &DescriptorPool, name: &str) -> String {
    let known: Vec<String> = pool.services().take(8).map(|known| format!("`{}`", known.full_name())).collect();
    format!(
        "it has no service `{name}`; it has {}",
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    )
}

impl Built {
    /// What its `google.api.http` options say.
    fn annotated(&mut self, pool: &DescriptorPool, service: &ServiceDescriptor, terms: &Terms) -> Result<(), String> {
        let before = self.bindings.len();
        let extension = pool.get_extension_by_name("google.api.http");
        let rule = |method: &MethodDescriptor| {
            let options = method.options();
            let extension = extension.as_ref().filter(|extension| options.has_extension(extension))?;
            options.get_extension(extension).as_message().cloned()
        };
        // A stream of a client's is no body of JSON.
        for method in service.methods().filter(|method| !method.is_client_streaming()) {
            let Some(rule) = rule(&method) else { continue };
            self.add_said(&method, &rule, terms)?;
            let more = rule.get_field_by_name("additional_bindings");
            for rule in more.iter().filter_map(|more| more.as_list()).flatten().filter_map(Value::as_message) {
                self.add_said(&method, rule, terms)?;
            }
        }
        if self.bindings.len() == before {
            return Err(format!(
                "no method of `{}` has a `google.api.http` that can be served: map them",
                service.full_name()
            ));
        }
        Ok(())
    }

    /// What one `google.api.HttpRule` says.
    fn add_said(&mut self, method: &MethodDescriptor, rule: &DynamicMessage, terms: &Terms) -> Result<(), String> {
        let text = |of: &DynamicMessage, name: &str| {
            of.get_field_by_name(name).and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
        };
        let wrong = |why: &str| format!("`{}`: {why}", method.full_name());
        let usual = ["get", "put", "post", "delete", "patch"].into_iter().find(|name| rule.has_field_by_name(name));
        let (verb, template) = match usual {
            Some(name) => (name.to_ascii_uppercase(), text(rule, name)),
            None => {
                let custom = rule.get_field_by_name("custom").filter(|_| rule.has_field_by_name("custom"));
                let custom = custom.as_ref().and_then(|custom| custom.as_message());
                let custom = custom.ok_or_else(|| wrong("its `google.api.http` has no path"))?;
                (text(custom, "kind"), text(custom, "path"))
            }
        };
        let verb =
            if verb == "*" { None } else { Some(verb.parse().map_err(|_| wrong("its kind is no method of HTTP"))?) };
        let (body, response_body) = (text(rule, "body"), text(rule, "response_body"));
        let rule = Rule {
            method: verb,
            template: &template,
            body: &body,
            response_body: &response_body,
            status: StatusCode::OK,
        };
        self.add(method, &rule, terms)
    }

    fn mapped(&mut self, pool: &DescriptorPool, mapped: &Mapped, terms: &Terms) -> Result<(), String> {
        let named = mapped.call.rsplit_once('/');
        let (service, name) =
            named.ok_or_else(|| format!("`{}` is no method: write `pkg.Service/Method`", mapped.call))?;
        let of = pool.get_service_by_name(service).ok_or_else(|| no_service(pool, service))?;
        let method = of.methods().find(|method| method.name() == name);
        let method = method.ok_or_else(|| format!("`{service}` has no method `{name}`"))?;
        if method.is_client_streaming() {
            return Err(format!("`{}` takes a stream, which JSON has not", mapped.call));
        }
        let has_body = mapped.method == Method::POST || mapped.method == Method::PUT || mapped.method == Method::PATCH;
        let usual = if has_body { "*" } else { "" };
        let rule = Rule {
            method: Some(mapped.method.clone()),
            template: &mapped.template,
            body: mapped.body.as_deref().unwrap_or(usual),
            response_body: mapped.response_body.as_deref().unwrap_or_default(),
            status: mapped.status,
        };
        self.add(&method, &rule, terms)
    }

    fn add(&mut self, method: &MethodDescriptor, rule: &Rule<'_>, terms: &Terms) -> Result<(), String> {
        let wrong = |why: String| format!("`{}`: {why}", method.full_name());
        let template = Template::parse(rule.template).map_err(wrong)?;
        let (input, output) = (method.input(), method.output());
        let variables: Result<Vec<_>, String> =
            template.variables.iter().map(|variable| variable_of(&input, &variable.field)).collect();
        let top = |of: &prost_reflect::MessageDescriptor, name: &str| {
            fields::named(of, name).ok_or_else(|| wrong(format!("`{}` has no field `{name}`", of.full_name())))
        };
        let body = match rule.body {
            "" => Body::None,
            "*" => Body::Whole,
            name => Body::Field(top(&input, name)?),
        };
        let field = if rule.response_body.is_empty() { None } else { Some(top(&output, rule.response_body)?) };
        let options =
            SerializeOptions::new().use_proto_field_name(terms.proto_names).skip_default_fields(!terms.defaults);
        let index = self.bindings.len();
        if index == ROUTES_MAX {
            return Err(format!("it makes more than {ROUTES_MAX} routes"));
        }
        self.tree.insert(&template, rule.method.clone(), index).map_err(|other| {
            let other = self.bindings.get(other).map_or("", |other| other.method.full_name());
            let method = rule.method.as_ref().map_or("*", Method::as_str);
            wrong(format!("`{method} {}` is a path of `{other}` already", rule.template))
        })?;
        self.bindings.push(Binding {
            path: format!("/{}/{}", method.parent_service().full_name(), method.name()).into(),
            is_stream: method.is_server_streaming(),
            status: rule.status,
            answers: Answers::new(output, field, options, terms),
            method: method.clone(),
            variables: variables.map_err(wrong)?,
            template,
            body,
        });
        Ok(())
    }
}

fn variable_of(input: &prost_reflect::MessageDescriptor, name: &str) -> Result<fields::Path, String> {
    let path = fields::find(input, name)?;
    let is_single = path.last().is_some_and(|field| !field.is_list() && !matches!(field.kind(), Kind::Message(_)));
    if is_single { Ok(path) } else { Err(format!("`{name}` is not one word, as a part of a path is")) }
}
