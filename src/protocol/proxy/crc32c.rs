//! CRC-32C (Castagnoli), the checksum of the PROXY protocol: short enough that a crate for it would be more to read.

/// The polynomial 0x1EDC6F41, lowest bit first.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// The effect of each value of a byte on the sum.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < u8::BITS {
            sum = if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

/// The checksum of these bytes, one piece after the other.
pub(super) fn of<const N: usize>(pieces: [&[u8]; N]) -> u32 {
    let bytes = pieces.into_iter().flatten();
    !bytes.fold(u32::MAX, |sum, byte| TABLE[usize::from(sum as u8 ^ byte)] ^ sum >> u8::BITS)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn the_published_values_come_out() {
        // The check value of the catalogue of CRCs, and RFC 3720 B.4.
        assert_eq!(of([b"123456789"]), 0xE306_9283);
        assert_eq!(of([&[0; 32]]), 0x8A91_36AA);
        assert_eq!(of([&[0xFF; 20], &[0xFF; 12]]), 0x62A8_AB43);
        assert_eq!(of([b""]), 0);
    }
}
