//! The whole screen: keys and figures go in, text comes out.
//!
//! Expected screens are the files in `tests/screen/expected`. `UPDATE_SCREENS=1 cargo test --test screen` writes
//! them anew; what changed is then read in the diff.

mod host;
mod keys;
mod limits;
mod screens;
mod shapes;
