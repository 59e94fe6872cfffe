//! Renders the OpenAPI document and the problem codes as HTML pages, on the server, so that they need neither
//! scripts nor external resources.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pulldown_cmark::{Parser, html};
use serde_json::{Map, Value};

/// The style sheet of the pages.
pub const STYLE: &str = include_str!("style.css");

/// The page of one problem code. `text` is Markdown.
pub(super) fn render_problem(code: &str, text: &str) -> String {
    let body = format!(
        "<h1><code>{}</code></h1>{}<p><a href=\"/docs\">The API</a></p>",
        escape(code),
        render_markdown(text)
    );
    page(code, &body)
}

/// The page of the complete OpenAPI document.
pub(super) fn render_description(document: &Value) -> String {
    let mut tags: BTreeMap<&str, Vec<(&str, &str, &Value)>> = BTreeMap::new();
    for (path, methods) in members(&document["paths"]) {
        for (method, operation) in members(methods) {
            tags.entry(text_of(&operation["tags"][0])).or_default().push((method, path, operation));
        }
    }
    let mut index = String::new();
    let mut body = String::new();
    for (tag, operations) in tags {
        append(&mut body, format_args!("<h2>{}</h2>", escape(tag)));
        for (method, path, operation) in operations {
            let (id, path) = (escape(text_of(&operation["operationId"])), escape(path));
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
    let (title, version) = (escape(text_of(&info["title"])), escape(text_of(&info["version"])));
    let description = render_markdown(text_of(&info["description"]));
    let head = format!(
        "<h1>{title} {version}</h1>{description}<p>For programs: \
         <a href=\"/openapi.json\">openapi.json</a>, OpenAPI 3.1.</p><nav><ul>{index}</ul></nav>"
    );
    page("API", &(head + &body))
}

fn render_operation(document: &Value, operation: &Value) -> String {
    let mut output = render_markdown(text_of(&operation["summary"]));
    let roles: Vec<&str> = operation["x-roles"].as_array().into_iter().flatten().map(text_of).collect();
    let callers = if roles.is_empty() { "all callers, no token needed".to_owned() } else { roles.join(", ") };
    append(&mut output, format_args!("<p>For: {}.</p>", escape(&callers)));
    let mut rows = String::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolve(document, parameter);
        let location =
            format!("{} in the {}", requirement(parameter["required"] == true), text_of(&parameter["in"]));
        let description = render_markdown(text_of(&parameter["description"]));
        rows.push_str(&row(
            text_of(&parameter["name"]),
            &type_label(&parameter["schema"]),
            &location,
            &description,
        ));
    }
    if let Some(body) = operation.get("requestBody") {
        let schema = &body["content"]["application/json"]["schema"];
        rows.push_str(&row("body", &type_label(schema), requirement(body["required"] == true), ""));
    }
    append(&mut output, format_args!("<table>{rows}</table><table>"));
    for (status, response) in members(&operation["responses"]) {
        let content = members(&response["content"]).next();
        let schema = content.map_or(&Value::Null, |(_, content)| &content["schema"]);
        let codes = response["x-codes"].as_array();
        let description = codes
            .map_or_else(|| render_markdown(text_of(&response["description"])), |codes| code_links(codes));
        let media_type = content.map_or("", |(media_type, _)| media_type.as_str());
        output.push_str(&row(status, &type_label(schema), media_type, &description));
    }
    output + "</table>"
}

fn code_links(codes: &[Value]) -> String {
    let link =
        |code: &Value| format!("<a href=\"/problems/{0}\"><code>{0}</code></a>", escape(text_of(code)));
    codes.iter().map(link).collect::<Vec<_>>().join(" ")
}

fn render_schema(schema: &Value) -> String {
    let mut output = render_markdown(text_of(&schema["description"]));
    if schema["properties"].is_null() {
        append(&mut output, format_args!("<p>{}</p>", type_label(schema)));
        return output;
    }
    output.push_str("<table>");
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().map(text_of).collect();
    for (name, field) in members(&schema["properties"]) {
        let description = render_markdown(text_of(&field["description"]));
        output.push_str(&row(
            name,
            &type_label(field),
            requirement(required.contains(&name.as_str())),
            &description,
        ));
    }
    output + "</table>"
}

fn row(name: &str, type_label: &str, location: &str, description: &str) -> String {
    format!("<tr><th><code>{}</code><td>{type_label}<td>{}<td>{description}", escape(name), escape(location))
}

fn requirement(required: bool) -> &'static str {
    if required { "required" } else { "optional" }
}

/// The type and the bounds of a schema, as HTML.
fn type_label(schema: &Value) -> String {
    if let Some(name) = text_of(&schema["$ref"]).rsplit('/').next().filter(|name| !name.is_empty()) {
        return format!("<a href=\"#schema-{0}\">{0}</a>", escape(name));
    }
    if let Some(alternatives) = schema["anyOf"].as_array() {
        return alternatives.iter().map(type_label).collect::<Vec<_>>().join(" or ");
    }
    if schema["type"] == "array" {
        return format!("list of {}", type_label(&schema["items"]));
    }
    let mut output = match &schema["type"] {
        Value::Array(types) => types.iter().map(text_of).collect::<Vec<_>>().join(" or "),
        one => text_of(one).to_owned(),
    };
    let bounds = [
        ("minimum", " ≥ "),
        ("maximum", " ≤ "),
        ("minLength", ", characters ≥ "),
        ("maxLength", ", characters ≤ "),
        ("pattern", ", "),
        ("format", ", "),
        ("enum", ": "),
        ("x-extensible-enum", ", currently: "),
    ];
    for (bound, prefix) in bounds {
        match &schema[bound] {
            Value::Null => {}
            Value::Array(values) => {
                let values: Vec<String> =
                    values.iter().map(|each| format!("<code>{}</code>", escape(text_of(each)))).collect();
                append(&mut output, format_args!("{prefix}{}", values.join(" ")));
            }
            Value::String(text) => append(&mut output, format_args!("{prefix}<code>{}</code>", escape(text))),
            other => append(&mut output, format_args!("{prefix}{other}")),
        }
    }
    output
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let target = text_of(&value["$ref"]).strip_prefix('#').and_then(|location| document.pointer(location));
    target.unwrap_or(value)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{} · boxoffice</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <link rel=\"stylesheet\" href=\"/docs/style.css\">\
         <body>{body}\n",
        escape(title)
    )
}

/// Renders Markdown as HTML. HTML within the Markdown is escaped.
fn render_markdown(markdown: &str) -> String {
    let mut output = String::new();
    let escape_html = |event| match event {
        pulldown_cmark::Event::Html(text) | pulldown_cmark::Event::InlineHtml(text) => {
            pulldown_cmark::Event::Text(text)
        }
        other => other,
    };
    html::push_html(&mut output, Parser::new(markdown).map(escape_html));
    output
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Appends to a string, which cannot fail.
fn append(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_in_markdown_is_escaped() {
        let output = render_problem("<b>", "Status <script>alert(1)</script> & `<i>`.\n\n<div>\n");
        for markup in ["<b>", "<script", "<i>", "<div>"] {
            assert!(!output.contains(markup), "{markup} in {output}");
        }
    }
}
