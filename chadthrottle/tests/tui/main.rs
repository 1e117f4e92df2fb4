//! The application and its screen without a terminal: keys and figures go in, text comes out. `screen.rs` has the
//! same through a real one.
//!
//! Expected screens are the files in `tests/tui/expected`. `UPDATE_SCREENS=1 cargo test --test tui` writes
//! them anew; what changed is then read in the diff.

mod demo;
mod history;
mod host;
mod keys;
mod limits;
mod mouse;
mod rules;
mod screens;
mod shapes;
mod states;
