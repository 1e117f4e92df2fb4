//! This process's own memory.

/// Gives memory that was freed back to the kernel, which the C library keeps for later otherwise: loading the programs
/// takes many times what running them does.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: takes no pointers, and what is in use stays where it is (`malloc_trim(3)`).
        unsafe { nix::libc::malloc_trim(0) };
    }
}
