//! What every structure in a map has to hold to.

/// Asserts size, alignment and the offset of every field, and that the fields fill the structure: a padding hole
/// would carry stale stack bytes into map keys, and the verifier refuses it.
macro_rules! assert_layout {
    ($ty:ty, $size:literal, { $($field:ident : $field_ty:ty => $offset:literal),+ $(,)? }) => {
        const _: () = {
            assert!(size_of::<$ty>() == $size);
            assert!(align_of::<$ty>() <= 8);
            $(assert!(core::mem::offset_of!($ty, $field) == $offset);)+
            assert!(0 $(+ size_of::<$field_ty>())+ == $size, "padding hole");
        };
    };
}

/// Declares the structures plain old data, so that aya may copy them from and to maps.
#[cfg(feature = "userspace")]
macro_rules! pod {
    ($($ty:ty),+ $(,)?) => {
        $(
            // SAFETY: `#[repr(C)]`, made of integers only, without padding (asserted above): every bit pattern
            // is a value.
            unsafe impl aya::Pod for $ty {}
        )+
    };
}
