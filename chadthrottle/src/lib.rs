//! Which process sends and receives how much, and holding it to a limit that the kernel keeps.
//!
//! Everything is one of two straight ways, and the modules follow them:
//!
//! ```text
//! read:   kernel → MonitorBackend::update → stats → App → ui::draw
//! write:  key or flag → Action → App::update → Effect → ThrottleManager → backend → kernel
//! ```
//!
//! The commands without a screen (`headless`) take the same ways, with their flags in place of the keys and lines of
//! text in place of the screen.

pub mod app;
pub mod backends;
pub mod cli;
pub mod config;
pub mod connections;
pub mod containers;
pub mod daemon;
pub mod doctor;
pub mod failure;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod headless;
pub mod history;
pub mod instances;
pub mod lookout;
pub mod names;
pub mod process;
pub mod rate;
pub mod rules;
pub mod run;
pub mod scope;
pub mod session;
pub mod stats;
pub mod sys;
pub mod ui;
