//! Tags on sockets, on those of this process: it has no other test, whose sockets would be tagged as well.

use std::{net::UdpSocket, time::Duration};

use chadthrottle::{
    backends::throttle::{
        Target,
        tagger::{SocketTagger, Tag, Tagger},
    },
    process::ProcessId,
    sys::socket_tag::{Field, TaggedSocket},
};

const PATIENCE: Duration = Duration::from_secs(10);

fn socket(of: &UdpSocket) -> anyhow::Result<TaggedSocket> {
    Ok(TaggedSocket::new(of.try_clone()?.into()).expect("it leaves by an interface"))
}

fn priority(of: &UdpSocket) -> anyhow::Result<u32> {
    Ok(socket(of)?.field(Field::Priority)?)
}

#[test]
fn sockets_are_tagged_and_put_back() -> anyhow::Result<()> {
    // Up to 6 anybody may.
    let tag = |priority| Tag { priority: Some(priority), mark: None };
    let target = Target::process(ProcessId::running(std::process::id().cast_signed())?, "tests");
    let (plain, own) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("[::1]:0")?);
    socket(&own)?.set_field(Field::Priority, 2)?;
    let mut tagger = SocketTagger::default();
    tagger.tag(&target, tag(6))?;
    assert_eq!((priority(&plain)?, priority(&own)?), (6, 6), "at once");
    tagger.tag(&target, tag(5))?;
    assert_eq!((priority(&plain)?, priority(&own)?), (5, 5), "another tag");

    let late = UdpSocket::bind("127.0.0.1:0")?;
    testbed::until("a new socket is found", PATIENCE, || Ok((priority(&late)? == 5).then_some(())))?;
    // The application's own change is overruled, and put back at the end.
    socket(&own)?.set_field(Field::Priority, 3)?;
    testbed::until("the tag is set again", PATIENCE, || Ok((priority(&own)? == 5).then_some(())))?;

    tagger.untag(&target.subject)?;
    assert_eq!((priority(&plain)?, priority(&own)?, priority(&late)?), (0, 3, 0));
    tagger.tag(&target, tag(4))?;
    drop(tagger);
    assert_eq!((priority(&plain)?, priority(&own)?), (0, 3), "also where nobody asks");
    Ok(())
}
