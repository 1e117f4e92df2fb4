//! From a frame to the IP packet in it.

use pnet_packet::{
    ethernet::{EtherType, EtherTypes, EthernetPacket},
    vlan::VlanPacket,
};

/// `struct virtio_net_hdr` (`include/uapi/linux/virtio_net.h`), which the kernel puts before a frame.
const OFFLOAD_HEADER: usize = 10;
/// `VIRTIO_NET_HDR_GSO_NONE`.
const NO_SEGMENTATION: u8 = 0;
/// Bytes of a VLAN tag: its number, and the type of what it contains (IEEE 802.1Q).
const VLAN_TAG: usize = 4;

/// Takes off what segmentation offload says of a frame: the frame, and with how many bytes of payload each segment
/// travels. `None` for one that travels in one piece.
pub(super) fn split_offload(bytes: &[u8]) -> Option<(Option<u32>, &[u8])> {
    let (header, frame) = bytes.split_at_checked(OFFLOAD_HEADER)?;
    // Flags, kind, length of the headers, size of a segment; in the machine's own byte order.
    let size = u16::from_ne_bytes([header[4], header[5]]);
    let is_segmented = header[1] != NO_SEGMENTATION && size > 0;
    Some((is_segmented.then(|| size.into()), frame))
}

/// The IP packet in an Ethernet frame. `None` where there is none, or it is in a VLAN.
///
/// What is in a VLAN passes the VLAN's own interface too, as the packet that a socket sent or gets, and is counted
/// there. Number 0 is no VLAN, only a priority: the interface itself takes such a frame.
pub(super) fn ip_in_ethernet(frame: &[u8]) -> Option<&[u8]> {
    let ethernet = EthernetPacket::new(frame)?;
    let mut kind = ethernet.get_ethertype();
    let mut rest = frame.get(EthernetPacket::minimum_packet_size()..)?;
    while is_vlan(kind) {
        let vlan = VlanPacket::new(rest)?;
        if vlan.get_vlan_identifier() != 0 {
            return None;
        }
        kind = vlan.get_ethertype();
        rest = rest.get(VLAN_TAG..)?;
    }
    matches!(kind, EtherTypes::Ipv4 | EtherTypes::Ipv6).then_some(rest)
}

fn is_vlan(kind: EtherType) -> bool {
    matches!(kind, EtherTypes::Vlan | EtherTypes::PBridge)
}

/// What holds of any frame. Returns the IP packet in it.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) -> Option<&[u8]> {
    let (segment, frame) = split_offload(bytes)?;
    assert!(segment != Some(0) && bytes.ends_with(frame), "{segment:?}");
    let packet = ip_in_ethernet(frame)?;
    assert!(frame.ends_with(packet), "it is not the rest of the frame");
    Some(packet)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(types: &[[u8; 2]], tags: &[u16]) -> Vec<u8> {
        let mut bytes = vec![2; 12];
        bytes.extend(types[0]);
        for (tag, kind) in tags.iter().zip(&types[1..]) {
            bytes.extend(tag.to_be_bytes());
            bytes.extend(kind);
        }
        bytes.extend([0x45, 1, 2, 3]);
        bytes
    }

    const IPV4: [u8; 2] = [0x08, 0x00];
    const IPV6: [u8; 2] = [0x86, 0xdd];
    const ARP: [u8; 2] = [0x08, 0x06];
    const VLAN: [u8; 2] = [0x81, 0x00];
    const PROVIDER: [u8; 2] = [0x88, 0xa8];

    #[test]
    fn ip_is_found_behind_priority_tags_and_not_in_vlans() {
        let packet = Some(&[0x45, 1, 2, 3][..]);
        assert_eq!(ip_in_ethernet(&frame(&[IPV4], &[])), packet);
        assert_eq!(ip_in_ethernet(&frame(&[IPV6], &[])), packet);
        assert_eq!(ip_in_ethernet(&frame(&[ARP], &[])), None);
        // Number 0, priority 7.
        assert_eq!(ip_in_ethernet(&frame(&[VLAN, IPV4], &[0xe000])), packet);
        assert_eq!(ip_in_ethernet(&frame(&[PROVIDER, VLAN, IPV6], &[0, 0x2000])), packet);
        assert_eq!(ip_in_ethernet(&frame(&[VLAN, IPV4], &[10])), None);
        assert_eq!(ip_in_ethernet(&frame(&[PROVIDER, VLAN, IPV4], &[0, 10])), None);
        assert_eq!(ip_in_ethernet(&frame(&[VLAN, IPV4], &[0])[..17]), None);
    }

    #[test]
    fn the_size_of_segments_is_taken_off() {
        let mut bytes = vec![0, 1, 66, 0];
        bytes.extend(1448_u16.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.push(9);
        assert_eq!(split_offload(&bytes), Some((Some(1448), &[9][..])));
        // With ECN.
        bytes[1] = 0x84;
        assert_eq!(split_offload(&bytes), Some((Some(1448), &[9][..])));
        bytes[1] = 0;
        assert_eq!(split_offload(&bytes), Some((None, &[9][..])));
        assert_eq!(split_offload(&bytes[..9]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            split_offload(&bytes);
            ip_in_ethernet(&bytes);
        }
    }
}
