//! The description as a page: rendered here, so that it needs neither a script nor a network.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pulldown_cmark::{Parser, html};
use serde_json::{Map, Value};

pub(super) const STYLE: &str = include_str!("style.css");

/// The page of one code.
pub(super) fn render_problem(code: &str, text: &str) -> String {
    let body = format!(
        "<h1><code>{}</code></h1>{}<p><a href=\"/docs\">The API</a></p>",
        escape(code),
        render_markdown(text)
    );
    page(code, &body)
}

/// The page of the whole description.
pub(super) fn render_description(document: &Value) -> String {
    let mut tags: BTreeMap<&str, Vec<(&str, &str, &Value)>> = BTreeMap::new();
    for (path, methods) in members(&document["paths"]) {
        for (method, operation) in members(methods) {
            tags.entry(word(&operation["tags"][0])).or_default().push((method, path, operation));
        }
    }
    let mut index = String::new();
    let mut body = String::new();
    for (tag, operations) in tags {
        append(&mut body, format_args!("<h2>{}</h2>", escape(tag)));
        for (method, path, operation) in operations {
            let (id, path) = (escape(word(&operation["operationId"])), escape(path));
            let title = format!("<span class=\"method\">{}</span> <code>{path}</code>", escape(method));
            append(&mut index, format_args!("<li><a href=\"#{id}\">{title}</a></li>"));
            append(&mut body, format_args!("<section id=\"{id}\"><h3>{title}</h3>"));
            body.push_str(&render_operation(document, operation));
            body.push_str("</section>");
        }
    }
    body.push_str("<h2>Schemas</h2>");
    for (name, schema) in members(&document["components"]["schemas"]) {
        let name = escape(name);
        append(&mut index, format_args!("<li><a href=\"#schema-{name}\">{name}</a></li>"));
        append(&mut body, format_args!("<section id=\"schema-{name}\"><h3>{name}</h3>"));
        body.push_str(&render_schema(schema));
        body.push_str("</section>");
    }
    let info = &document["info"];
    let (title, version) = (escape(word(&info["title"])), escape(word(&info["version"])));
    let about = render_markdown(word(&info["description"]));
    let head = format!(
        "<h1>{title} {version}</h1>{about}<p>For programs: <a href=\"/openapi.json\">openapi.json</a>, OpenAPI \
         3.1.</p><nav><ul>{index}</ul></nav>"
    );
    page("API", &(head + &body))
}

fn render_operation(document: &Value, operation: &Value) -> String {
    let mut shown = render_markdown(word(&operation["summary"]));
    let roles: Vec<&str> = operation["x-roles"].as_array().into_iter().flatten().map(word).collect();
    let callers = if roles.is_empty() { "everybody, without a token".to_owned() } else { roles.join(", ") };
    append(&mut shown, format_args!("<p>For: {}.</p>", escape(&callers)));
    let mut rows = String::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolve(document, parameter);
        let place =
            format!("{} in the {}", requirement(parameter["required"] == true), word(&parameter["in"]));
        let about = render_markdown(word(&parameter["description"]));
        rows.push_str(&row(word(&parameter["name"]), &type_label(&parameter["schema"]), &place, &about));
    }
    if let Some(body) = operation.get("requestBody") {
        let schema = &body["content"]["application/json"]["schema"];
        rows.push_str(&row("body", &type_label(schema), requirement(body["required"] == true), ""));
    }
    append(&mut shown, format_args!("<table>{rows}</table><table>"));
    for (status, answer) in members(&operation["responses"]) {
        let content = members(&answer["content"]).next();
        let schema = content.map_or(&Value::Null, |(_, content)| &content["schema"]);
        let codes = answer["x-codes"].as_array();
        let about =
            codes.map_or_else(|| render_markdown(word(&answer["description"])), |codes| code_links(codes));
        let media_type = content.map_or("", |(media_type, _)| media_type.as_str());
        shown.push_str(&row(status, &type_label(schema), media_type, &about));
    }
    shown + "</table>"
}

fn code_links(codes: &[Value]) -> String {
    let link = |code: &Value| format!("<a href=\"/problems/{0}\"><code>{0}</code></a>", escape(word(code)));
    codes.iter().map(link).collect::<Vec<_>>().join(" ")
}

fn render_schema(schema: &Value) -> String {
    let mut shown = render_markdown(word(&schema["description"]));
    if schema["properties"].is_null() {
        append(&mut shown, format_args!("<p>{}</p>", type_label(schema)));
        return shown;
    }
    shown.push_str("<table>");
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().map(word).collect();
    for (name, field) in members(&schema["properties"]) {
        let about = render_markdown(word(&field["description"]));
        shown.push_str(&row(
            name,
            &type_label(field),
            requirement(required.contains(&name.as_str())),
            &about,
        ));
    }
    shown + "</table>"
}

fn row(name: &str, kind: &str, place: &str, about: &str) -> String {
    format!("<tr><th><code>{}</code><td>{kind}<td>{}<td>{about}", escape(name), escape(place))
}

fn requirement(required: bool) -> &'static str {
    if required { "required" } else { "optional" }
}

/// What a schema allows, in few words.
fn type_label(schema: &Value) -> String {
    if let Some(name) = word(&schema["$ref"]).rsplit('/').next().filter(|name| !name.is_empty()) {
        return format!("<a href=\"#schema-{0}\">{0}</a>", escape(name));
    }
    if let Some(either) = schema["anyOf"].as_array() {
        return either.iter().map(type_label).collect::<Vec<_>>().join(" or ");
    }
    if schema["type"] == "array" {
        return format!("list of {}", type_label(&schema["items"]));
    }
    let mut shown = match &schema["type"] {
        Value::Array(types) => types.iter().map(word).collect::<Vec<_>>().join(" or "),
        one => word(one).to_owned(),
    };
    let bounds = [
        ("minimum", " ≥ "),
        ("maximum", " ≤ "),
        ("minLength", ", characters ≥ "),
        ("maxLength", ", characters ≤ "),
        ("pattern", ", "),
        ("format", ", "),
        ("enum", ": "),
        ("x-extensible-enum", ", so far: "),
    ];
    for (bound, before) in bounds {
        match &schema[bound] {
            Value::Null => {}
            Value::Array(words) => {
                let words: Vec<String> =
                    words.iter().map(|each| format!("<code>{}</code>", escape(word(each)))).collect();
                append(&mut shown, format_args!("{before}{}", words.join(" ")));
            }
            Value::String(text) => append(&mut shown, format_args!("{before}<code>{}</code>", escape(text))),
            other => append(&mut shown, format_args!("{before}{other}")),
        }
    }
    shown
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let target = word(&value["$ref"]).strip_prefix('#').and_then(|place| document.pointer(place));
    target.unwrap_or(value)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{} · boxoffice</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"stylesheet\" href=\"/docs/style.css\">\
         <body>{body}\n",
        escape(title)
    )
}

/// Text in Markdown. What looks like HTML in it is shown, not interpreted.
fn render_markdown(markdown: &str) -> String {
    let mut shown = String::new();
    let shy = |event| match event {
        pulldown_cmark::Event::Html(text) | pulldown_cmark::Event::InlineHtml(text) => {
            pulldown_cmark::Event::Text(text)
        }
        other => other,
    };
    html::push_html(&mut shown, Parser::new(markdown).map(shy));
    shown
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Writing to a text cannot fail.
fn append(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_in_markdown_is_escaped() {
        let shown = render_problem("<b>", "Status <script>alert(1)</script> & `<i>`.\n\n<div>\n");
        for markup in ["<b>", "<script", "<i>", "<div>"] {
            assert!(!shown.contains(markup), "{markup} in {shown}");
        }
    }
}
