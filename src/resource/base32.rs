//! base32hex (RFC 4648, section 7), in lower case and without padding: texts sort as bytes do.

const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The text of `bytes`.
pub(crate) fn text(bytes: &[u8]) -> String {
    let bits = bytes.len() * 8;
    let five = |start: usize| {
        let bit = |at: usize| {
            let byte = bytes.get(at / 8).copied().unwrap_or(0);
            usize::from(byte >> (7 - at % 8) & 1)
        };
        (start..start + 5).fold(0, |value, at| value << 1 | bit(at))
    };
    let digits = (0..bits).step_by(5).map(|start| DIGITS[five(start)]);
    digits.map(char::from).collect()
}

/// The bytes of which this is the text; none if it is not exactly the text of so many.
pub(crate) fn read<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (index, digit) in digits.bytes().enumerate() {
        let value = DIGITS.iter().position(|known| *known == digit)?;
        for bit in 0..5 {
            let at = index * 5 + bit;
            if value >> (4 - bit) & 1 == 1 {
                *bytes.get_mut(at / 8)? |= 1 << (7 - at % 8);
            }
        }
    }
    (text(&bytes) == digits).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_the_rfc_and_read_back() {
        // RFC 4648, section 10, without padding and in lower case.
        for (bytes, expected) in [
            (&b""[..], ""),
            (b"f", "co"),
            (b"fo", "cpng"),
            (b"foo", "cpnmu"),
            (b"foob", "cpnmuog"),
            (b"fooba", "cpnmuoj1"),
            (b"foobar", "cpnmuoj1e8"),
        ] {
            assert_eq!(text(bytes), expected);
        }
        assert_eq!(read::<6>("cpnmuoj1e8"), Some(*b"foobar"));
        assert_eq!(read::<48>(&text(&[0xa5; 48])), Some([0xa5; 48]));
    }

    #[test]
    fn what_is_not_exactly_a_text_is_refused() {
        for wrong in [
            "",
            "c",
            "cpnmuoj1e",
            "cpnmuoj1e80",
            "CPNMUOJ1E8",
            "cpnmuoj1e9",
            "cpnmuoj1e/",
        ] {
            assert_eq!(read::<6>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn texts_sort_as_bytes_do() {
        let bytes: Vec<[u8; 2]> = (0..=u16::MAX).step_by(7).map(u16::to_be_bytes).collect();
        let texts: Vec<String> = bytes.iter().map(|bytes| text(bytes)).collect();
        assert!(texts.is_sorted());
    }
}
