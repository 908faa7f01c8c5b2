//! Graphs that our own kernels do not run: tract does, in a build that has it; without it they are refused.

use std::path::Path;

use smalti_runtime::Model;
use smalti_runtime::inspect::inspect;

/// A vision transformer with a function that we have no kernels for.
fn tanh() -> Vec<u8> {
    let graphs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operators/graphs");
    std::fs::read(graphs.join("other_function_tanh.onnx")).unwrap()
}

#[test]
fn a_graph_without_kernels_runs_on_tract_or_is_refused() {
    if cfg!(feature = "tract") {
        let model = Model::from_bytes(&tanh()).unwrap();
        assert!(
            model.fallback_reason().is_some_and(|why| why.contains("node `")),
            "{:?}",
            model.fallback_reason()
        );
        assert!(model.session().unwrap().run_floats(&vec![0.5; model.input().values()]).is_ok());
        return;
    }
    for error in [Model::from_bytes(&tanh()).unwrap_err(), inspect(&tanh()).unwrap_err()] {
        assert_eq!(error.exit_code(), 3);
        let message = error.to_string();
        // The node, the reason, and what would run it.
        for word in ["node `", "no kernel for", "feature `tract`"] {
            assert!(message.contains(word), "{word}: {message}");
        }
    }
}
