//! The OpenAPI 3.1 document, generated from the code, an HTML page that renders it, and a page for every
//! problem code. Nothing here determines the behaviour of the API. The pages load no external resources.

mod docs_page;
mod document;
mod operations;
mod problems;

use std::sync::LazyLock;

use serde_json::Value;

pub use docs_page::STYLE;

static DOCUMENT: LazyLock<Value> = LazyLock::new(document::document);
static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", *DOCUMENT));
static DOCS_PAGE: LazyLock<String> = LazyLock::new(|| docs_page::render_description(&DOCUMENT));

/// The document as JSON text.
pub fn text() -> &'static str {
    &TEXT
}

/// The document as an HTML page.
pub fn docs_page() -> &'static str {
    &DOCS_PAGE
}

/// The HTML page of a problem code; `None` if the code is unknown.
pub fn problem_page(code: &str) -> Option<String> {
    problems::problem_doc(code).map(|doc| docs_page::render_problem(doc.code, doc.text))
}
