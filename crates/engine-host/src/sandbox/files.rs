//! Which files a sealed process may open: the model's, to read them.

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use proto::host::LoadSpec;

/// The newest set of rights that is asked for; older kernels give what they have. Those that Linux 5.13, the first with
/// Landlock, does not know (TCP, signals, abstract sockets, truncation) are refused by the list of calls as well.
const NEWEST: ABI = ABI::V7;

/// Restricts the calling thread and all that it will start.
///
/// # Errors
///
/// What is missing, for people.
pub(super) fn restrict(spec: &LoadSpec) -> Result<(), String> {
    match rules(spec).map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Ok(()),
        Ok(RulesetStatus::NotEnforced) => Err(
            "Landlock, so other files can be read (it needs Linux 5.13 or newer with Landlock enabled)"
                .to_owned(),
        ),
        Err(error) => Err(format!("Landlock, so other files can be read ({error})")),
    }
}

fn rules(spec: &LoadSpec) -> Result<RestrictionStatus, RulesetError> {
    // A file that is not there gets no rule; loading it says so better than this could.
    let readable = super::files(spec)
        .chain(&spec.adapters_dir)
        .filter_map(|path| PathFd::new(path).ok())
        .map(|file| Ok::<_, RulesetError>(PathBeneath::new(file, AccessFs::ReadFile)));
    Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(readable)?
        .restrict_self()
}
