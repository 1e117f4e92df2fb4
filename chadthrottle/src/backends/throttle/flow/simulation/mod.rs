//! The controller against connections that are calculated.

mod paces;
mod windows;
