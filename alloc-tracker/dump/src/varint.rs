//! Numbers of variable length: LEB128 for unsigned numbers, zigzag for signed differences. Never
//! allocates, never panics.

/// The most bytes that [`put`] writes for one number.
pub const MAX_LEN: usize = 10;

/// Writes `value` at offset `*at` and moves `*at` behind it. Returns `None` and leaves `*at`
/// unchanged if the number does not fit.
///
/// ```
/// let (mut buf, mut at) = ([0u8; 4], 0);
/// alloc_dump::varint::put(&mut buf, &mut at, 300).unwrap();
/// assert_eq!((&buf[..at], at), (&[0xAC, 0x02][..], 2));
/// ```
#[inline]
pub fn put(buf: &mut [u8], at: &mut usize, mut value: u64) -> Option<()> {
    let mut end = *at;
    while value >= 0x80 {
        *buf.get_mut(end)? = (value as u8) | 0x80;
        value >>= 7;
        end += 1;
    }
    *buf.get_mut(end)? = value as u8;
    *at = end + 1;
    Some(())
}

/// Reads a number at offset `*at` and moves `*at` behind it. Returns `None` and leaves `*at`
/// unchanged if the buffer ends first or the number needs more than 64 bits.
///
/// ```
/// let mut at = 0;
/// assert_eq!(alloc_dump::varint::get(&[0xAC, 0x02], &mut at), Some(300));
/// assert_eq!(alloc_dump::varint::get(&[0x80], &mut 0), None);
/// ```
#[inline]
pub fn get(buf: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    let mut shift = 0;
    let mut end = *at;
    loop {
        let byte = *buf.get(end)?;
        end += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            *at = end;
            return Some(value);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// Maps small differences of either sign to small numbers: 0, -1, 1, -2 become 0, 1, 2, 3.
///
/// ```
/// assert_eq!(alloc_dump::varint::zigzag(-2), 3);
/// ```
#[inline]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
///
/// ```
/// assert_eq!(alloc_dump::varint::unzigzag(3), -2);
/// ```
#[inline]
pub const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Returns the difference `to - from`, modulo 2^64, as a [`zigzag`] number. So any two numbers have
/// a difference.
#[inline]
pub const fn delta(from: u64, to: u64) -> u64 {
    zigzag(to.wrapping_sub(from) as i64)
}

/// Returns the `to` from which [`delta`] made this difference to `from`.
#[inline]
pub const fn undelta(from: u64, delta: u64) -> u64 {
    from.wrapping_add(unzigzag(delta) as u64)
}
