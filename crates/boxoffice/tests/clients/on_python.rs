//! Clients for Python.

use crate::Workspace;

#[tokio::test]
async fn u2_the_openapi_document_is_valid() {
    let workspace = Workspace::new(&[]).await;
    workspace.run("openapi-spec-validator openapi.json").await;
}

#[tokio::test]
async fn u2_a_client_of_openapi_python_client_books() {
    let workspace = Workspace::new(&["openapi_python_client.py", "mypy.ini"]).await;
    let generate = "openapi-python-client generate --meta none --path openapi.json --output-path";
    std::fs::create_dir(workspace.path("generated")).expect("a folder");
    let output = workspace.run(&format!("{generate} generated/boxoffice_client")).await;
    // The generator does not support OpenMetrics, and omits what it does not support.
    let warnings = output.lines().filter(|line| line.starts_with("WARNING"));
    let unexpected: Vec<&str> = warnings.filter(|line| !line.contains("GET /metrics")).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    workspace.run("mypy openapi_python_client.py").await;
    workspace.run_booking_program("python3 openapi_python_client.py").await;
}

#[tokio::test]
async fn u2_a_client_of_openapi_generator_books() {
    let workspace = Workspace::new(&["openapi_generator.py", "mypy.ini"]).await;
    workspace.run_openapi_generator("-g python -o generated --package-name boxoffice_api").await;
    workspace.run("mypy openapi_generator.py").await;
    workspace.run_booking_program("python3 openapi_generator.py").await;
}
