//! The eBPF programs: who owns a socket, how much it carries, and whether the next packet may pass.
//!
//! Entry points only; each is a few lines over the modules. The programs attach at one cgroup v2 node and see the
//! processes below it:
//!
//! | program | hook | does |
//! | --- | --- | --- |
//! | `socket_created` | `cgroup/sock_create` | writes the owner into the socket's own storage |
//! | `connection_opens` | `sock_ops` | keeps the first window of a limited process's connections small |
//! | `socket_sent`, `socket_received` | `tp_btf/sock_send_length`, `…recv_length` | make whoever uses a socket its owner |
//! | `socket_released` | `cgroup/sock_release` | counts what was held back for a socket that nobody used |
//! | `process_forked` | `tp_btf/sched_process_fork` | makes children members of their parent's target |
//! | `process_executed`, `process_renamed`, `process_ended` | `tp_btf/sched_process_exec`, `task_rename`, `sched_process_exit` | keep what is known of a process up to date |
//! | `cgroup_made` | `tp_btf/cgroup_mkdir` | limits a cgroup that is made again |
//! | `packet_leaves` | `cgroup_skb/egress` | holds the target to its limit, counts what passes for the owner |
//! | `packet_arrives` | `cgroup_skb/ingress` | the same for the other direction |
//! | `packet_forwarded` | `tcx/egress`, where this host forwards | counts what passes through |
//! | `packet_enters` | `tcx/ingress`, where a limit is held there | sends it through a queue, or drops what is over the limit |
//! | `limit_answers` | none: a test runs it | says what the limiter's arithmetic makes of a packet |
//!
//! For any other target than BPF this crate is an empty program, so that commands over the whole workspace work.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "the only way to an atomic exchange on BPF"),
    expect(clippy::inline_always, reason = "a call between BPF functions costs registers and verification")
)]

#[cfg(target_arch = "bpf")]
mod account;
#[cfg(target_arch = "bpf")]
mod counters;
#[cfg(target_arch = "bpf")]
mod entrance;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod fragments;
#[cfg(target_arch = "bpf")]
mod headers;
#[cfg(target_arch = "bpf")]
mod limit;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod membership;
#[cfg(target_arch = "bpf")]
mod named;
#[cfg(target_arch = "bpf")]
mod nobody;
#[cfg(target_arch = "bpf")]
mod offsets;
#[cfg(target_arch = "bpf")]
mod opening;
#[cfg(target_arch = "bpf")]
mod owner;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod peer;
#[cfg(target_arch = "bpf")]
mod process;
#[cfg(target_arch = "bpf")]
mod transport;
#[cfg(target_arch = "bpf")]
mod waiting;

#[cfg(target_arch = "bpf")]
#[expect(clippy::needless_pass_by_value, reason = "contexts are handed over by what the macros make")]
mod programs {
    use core::ffi::c_void;

    use aya_ebpf::{
        macros::{btf_tracepoint, cgroup_skb, cgroup_sock, classifier, sock_ops},
        programs::{BtfTracePointContext, SkBuffContext, SockContext, SockOpsContext, TcContext},
    };
    use chadthrottle_common::{
        DIRECTION_DOWNLOAD, DIRECTION_UPLOAD, SocketOwner,
        question::{QUESTION_AT, Question},
    };

    use crate::{
        account, entrance, forward,
        limit::{self, Verdict},
        named, opening, owner,
        packet::Packet,
        process,
    };

    /// The packet passes. (What the numbers mean on egress is at `BPF_PROG_CGROUP_INET_EGRESS_RUN_ARRAY`,
    /// include/linux/bpf-cgroup.h.)
    const PASS: i32 = 1;
    /// Ingress: the packet is dropped.
    const DROP_INGRESS: i32 = 0;
    /// Egress: the packet is dropped as by a full queue (`NET_XMIT_DROP`). TCP keeps the segment, slows down and tries
    /// again (`tcp_write_xmit`), so that nothing is lost; UDP sees success, unless the program
    /// asked to be told (`IP_RECVERR`). The other way to drop, 0, returns EPERM, which programs take for a firewall. The
    /// gentler one, 3, passes the packet and has TCP halve its window, each time: where the round trip is short that took
    /// a third of what the limit allows.
    const DROP_EGRESS: i32 = 2;

    #[cgroup_sock(sock_create)]
    pub(crate) fn socket_created(ctx: SockContext) -> i32 {
        owner::tag_new_socket(&ctx);
        // Never a reason to refuse a socket.
        1
    }

    #[cgroup_sock(sock_release)]
    pub(crate) fn socket_released(ctx: SockContext) -> i32 {
        // SAFETY: the hook's own socket; it is released in the context of the process that closes it.
        unsafe {
            if let Some(socket) = owner::of_socket(ctx.sock.cast()) {
                if (*socket).is_presumed != 0 {
                    owner::claim(&ctx, socket);
                }
                owner::release_held(socket);
            }
        }
        1
    }

    #[sock_ops]
    pub(crate) fn connection_opens(ctx: SockOpsContext) -> u32 {
        opening::choose_window(&ctx);
        // The reply stands in the context.
        1
    }

    #[btf_tracepoint(function = "sock_send_length")]
    pub(crate) fn socket_sent(ctx: BtfTracePointContext) -> i32 {
        if let Some((socket, sk)) = socket_used(&ctx) {
            // SAFETY: the tracepoint's own socket and its storage, in the context of the process that called.
            unsafe { owner::has_written(socket, sk) };
        }
        0
    }

    #[btf_tracepoint(function = "sock_recv_length")]
    pub(crate) fn socket_received(ctx: BtfTracePointContext) -> i32 {
        socket_used(&ctx);
        0
    }

    /// Both tracepoints give the socket, and what the call will return (include/trace/events/sock.h).
    #[inline(always)]
    fn socket_used(ctx: &BtfTracePointContext) -> Option<(*mut SocketOwner, *mut c_void)> {
        let result: i32 = ctx.arg(1);
        if result <= 0 {
            return None;
        }
        let sk: *mut c_void = ctx.arg::<*const u8>(0).cast_mut().cast();
        // SAFETY: the tracepoint's own socket, in the context of the process that called.
        unsafe {
            let socket = owner::of_socket(sk)?;
            owner::claim(ctx, socket);
            Some((socket, sk))
        }
    }

    #[btf_tracepoint(function = "sched_process_fork")]
    pub(crate) fn process_forked(ctx: BtfTracePointContext) -> i32 {
        process::forked(&ctx);
        0
    }

    #[btf_tracepoint(function = "sched_process_exec")]
    pub(crate) fn process_executed(ctx: BtfTracePointContext) -> i32 {
        process::executed(&ctx);
        0
    }

    #[btf_tracepoint(function = "task_rename")]
    pub(crate) fn process_renamed(ctx: BtfTracePointContext) -> i32 {
        process::renamed(&ctx);
        0
    }

    #[btf_tracepoint(function = "sched_process_exit")]
    pub(crate) fn process_ended(ctx: BtfTracePointContext) -> i32 {
        process::ended(&ctx);
        0
    }

    #[btf_tracepoint(function = "cgroup_mkdir")]
    pub(crate) fn cgroup_made(ctx: BtfTracePointContext) -> i32 {
        named::cgroup_made(&ctx);
        0
    }

    #[cgroup_skb(egress)]
    pub(crate) fn packet_leaves(ctx: SkBuffContext) -> i32 {
        let Some(packet) = Packet::counted(&ctx, DIRECTION_UPLOAD) else { return PASS };
        if limit::verdict(&ctx, &packet, DIRECTION_UPLOAD) == Verdict::Drop {
            return DROP_EGRESS;
        }
        account::count(&packet, DIRECTION_UPLOAD);
        PASS
    }

    #[cgroup_skb(ingress)]
    pub(crate) fn packet_arrives(ctx: SkBuffContext) -> i32 {
        let Some(packet) = Packet::counted(&ctx, DIRECTION_DOWNLOAD) else { return PASS };
        if limit::verdict(&ctx, &packet, DIRECTION_DOWNLOAD) == Verdict::Drop {
            return DROP_INGRESS;
        }
        account::count(&packet, DIRECTION_DOWNLOAD);
        PASS
    }

    /// The next program on the interface, or the packet's way on (`TCX_NEXT`, include/uapi/linux/bpf.h).
    const NEXT: i32 = -1;

    #[classifier]
    pub(crate) fn packet_forwarded(ctx: TcContext) -> i32 {
        forward::count(&ctx);
        NEXT
    }

    #[classifier]
    pub(crate) fn packet_enters(ctx: TcContext) -> i32 {
        entrance::verdict(&ctx)
    }

    #[classifier]
    pub(crate) fn limit_answers(ctx: TcContext) -> i32 {
        let Ok(question) = ctx.load::<Question>(QUESTION_AT) else { return NEXT };
        let answer = question.answer();
        match ctx.store(QUESTION_AT + size_of::<Question>(), &answer, 0) {
            Ok(()) => 0,
            Err(_) => NEXT,
        }
    }

    /// The verifier has proved that nothing gets here; the language wants it all the same.
    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    /// GPL-only helpers (`bpf_probe_read_kernel`) demand a licence that is compatible with the GPL.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
