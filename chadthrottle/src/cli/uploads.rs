//! How upload limits are held, for who wants it in another way.

use clap::Args;

use crate::backends::TaggerChoice;

/// Options of the backends for uploads.
#[derive(Args, Debug)]
pub struct UploadOptions {
    /// Where somebody gave an interface an HTB queue, add classes to it instead of refusing; they are taken
    /// away at the end, and what he made stays as it is.
    #[arg(long, global = true)]
    pub use_existing_htb: bool,

    /// By what `tc_htb` and `nftables` know whose a packet is, and `ifb_tc`, which knows no cgroups.
    #[arg(long, global = true, value_name = "HOW", value_enum, default_value_t)]
    pub tagger: TaggerChoice,
}
