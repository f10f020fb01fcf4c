//! What a node with an engine that is not fully locked up may do: its own work, and that of others if the owner says so.

use crate::status::SandboxStatus;
use proto::host::{Sandbox, SandboxLevel};

/// Why no stages are served for others, with the next step; `None` when they are.
#[must_use]
pub fn hosting_refused(sandbox: &Sandbox, allow_unsandboxed: bool) -> Option<String> {
    if sandbox.level == SandboxLevel::Full || allow_unsandboxed {
        return None;
    }
    let Sandbox { level, missing } = sandbox;
    Some(format!(
        "this node's engine is not fully locked up ({level}; missing: {}), so it serves no stages for others; \
         run it on a system that can, or let its owner start it with --allow-unsandboxed",
        missing.join("; ")
    ))
}

/// The sandbox for status; `sandbox` is that of the engine that runs now, if one does.
#[must_use]
pub fn status(sandbox: Option<&Sandbox>, allow_unsandboxed: bool) -> SandboxStatus {
    SandboxStatus {
        level: sandbox.map(|sandbox| sandbox.level),
        missing: sandbox.map_or_else(Vec::new, |sandbox| sandbox.missing.clone()),
        allow_unsandboxed,
        hosting_refused: sandbox.and_then(|sandbox| hosting_refused(sandbox, allow_unsandboxed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(level: SandboxLevel, allow: bool, served: bool) {
        let missing = vec!["Landlock".to_owned()];
        let refused = hosting_refused(&Sandbox { level, missing }, allow);
        assert_eq!(refused.is_none(), served, "{level} {allow}");
        if let Some(why) = refused {
            assert!(
                why.contains("Landlock") && why.contains("--allow-unsandboxed"),
                "{why}"
            );
        }
    }

    #[test]
    fn only_a_full_sandbox_or_the_owner_lets_others_in() {
        check(SandboxLevel::Full, false, true);
        check(SandboxLevel::Partial, false, false);
        check(SandboxLevel::ProcessOnly, false, false);
        check(SandboxLevel::Partial, true, true);
        check(SandboxLevel::ProcessOnly, true, true);
    }
}
