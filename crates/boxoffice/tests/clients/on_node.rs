//! Clients for TypeScript.

use std::path::Path;

use crate::{TOOLS, Workspace};

/// A folder for one program.
async fn workspace(program: &str) -> Workspace {
    let workspace = Workspace::new(&[program, "package.json", "tsconfig.json"]).await;
    let modules = Path::new(TOOLS).join("node_modules");
    std::os::unix::fs::symlink(modules, workspace.path("node_modules")).expect("a link");
    workspace
}

#[tokio::test]
async fn u2_a_client_of_openapi_typescript_books() {
    let workspace = workspace("openapi_fetch.ts").await;
    let generate = "node node_modules/openapi-typescript/bin/cli.js openapi.json --output";
    workspace.run(&format!("{generate} generated/boxoffice.d.ts")).await;
    workspace.run("node node_modules/typescript/bin/tsc").await;
    workspace.run_booking_program("node compiled/openapi_fetch.js").await;
}

#[tokio::test]
async fn u2_a_client_of_openapi_generator_books() {
    let workspace = workspace("typescript_fetch.ts").await;
    let options = "-g typescript-fetch -o generated/typescript-fetch --additional-properties";
    workspace.run_openapi_generator(&format!("{options} importFileExtension=.js")).await;
    workspace.run("node node_modules/typescript/bin/tsc").await;
    workspace.run_booking_program("node compiled/typescript_fetch.js").await;
}
