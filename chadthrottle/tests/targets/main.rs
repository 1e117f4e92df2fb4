//! Whom a limit covers, and which of its traffic: through the binary, and where two limits meet, through the library.
//!
//! What must not pass at all is tested with a limit of nothing: then the first packet that arrives is one too many.

mod cgroups;
mod changes;
mod containers;
mod figures;
mod history;
mod inside;
mod opening;
mod precedence;
mod processes;
mod programs;
mod rig;
mod rules;
mod shared;
mod sharing;
#[path = "../support/mod.rs"]
mod support;
mod traffic_types;
mod users;
