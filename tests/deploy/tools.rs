//! The programs that judge what is written for containers and clusters;
//! `tests/run.sh` installs them from `requirements.txt`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::output;
use crate::project;

/// One of the installed programs. A missing one fails the test.
pub fn tool(name: &str) -> Command {
    let path = project().join("target/deploy-tools/bin").join(name);
    assert!(path.exists(), "{} is missing: `sh tests/run.sh` installs it", path.display());
    let mut command = Command::new(path);
    command.current_dir(project());
    command
}

fn python(script: &str, file: &Path) -> Value {
    let said = output(tool("python").args(["-c", script]).arg(file));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{}: {error}:\n{said}", file.display()))
}

/// All documents of a YAML file, anchors and merges carried out.
pub fn yaml(file: &Path) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    serde_json::from_value(python(script, file)).unwrap()
}

/// The instructions of a Dockerfile as the container engine reads them: `cmd`, `flags`, `value`, and `json`
/// for the exec form.
pub fn dockerfile(file: &Path) -> Vec<Value> {
    let script = "import dockerfile, json, sys; print(json.dumps([i._asdict() for i in dockerfile.parse_file(sys.argv[1])]))";
    serde_json::from_value(python(script, file)).unwrap()
}

/// The texts of a list.
pub fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap_or_else(|| panic!("{list} is no list")).iter().filter_map(Value::as_str).collect()
}
