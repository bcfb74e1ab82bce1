//! Code of the recorded program that the recorder does not serve: what the dump shows of it. In: a
//! profile's [`Trust`]. Out: words.

use alloc_dump::record::Installation;

use crate::profile::Trust;
use crate::units::plural;

/// Returns the name of an installation in JSON; `None` if this release does not know it.
pub(super) fn name_of_installation(installation: Installation) -> Option<&'static str> {
    match installation {
        Installation::Complete => Some("complete"),
        Installation::Partial => Some("partial"),
        Installation::Missing => Some("missing"),
        _ => None,
    }
}

/// Returns one sentence for each sign of code whose allocations are not recorded.
pub(super) fn warnings_of_other_code(trust: &Trust) -> Vec<String> {
    let mut warnings = Vec::new();
    match trust.installation {
        Some(Installation::Missing) => warnings.push(
            "alloc-tracker was not the program's global allocator, so there was nothing to record".to_owned(),
        ),
        Some(Installation::Partial) => warnings.push(
            "allocations inside the standard library are not recorded: libstd is linked dynamically, and does not call \
             the program's global allocator; link it statically (without `-C prefer-dynamic`)"
                .to_owned(),
        ),
        _ if trust.is_unproven => warnings.push(
            "no heap event was recorded, and nothing shows that alloc-tracker was the program's global allocator"
                .to_owned(),
        ),
        _ => {}
    }
    let loss = trust.has_loss();
    if trust.allocated_elsewhere > 0 {
        let frees = plural(trust.allocated_elsewhere, "free");
        warnings.push(if loss {
            format!("{frees} of blocks whose allocation was lost, or that were allocated elsewhere")
        } else {
            format!(
                "{frees} of blocks that were allocated elsewhere, by code that alloc-tracker does not see; live \
                 bytes never contained them"
            )
        });
    }
    if trust.freed_elsewhere > 0 {
        let blocks = plural(trust.freed_elsewhere, "block");
        warnings.push(if loss {
            format!("{blocks} whose free was lost, or that were freed elsewhere")
        } else {
            format!(
                "{blocks} that were freed elsewhere, by code that alloc-tracker does not see; live bytes contain such \
                 a block until its address is allocated again"
            )
        });
    }
    warnings
}
