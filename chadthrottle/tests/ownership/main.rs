//! Every byte is counted for the process that sent or received it, whoever opened the socket: through the binary, with
//! IP bytes known from the other side's kernel.

mod books;
mod odd;
mod peer;
mod plain;
mod shared;
#[path = "../support/mod.rs"]
mod support;
