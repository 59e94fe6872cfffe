//! Money as a decimal number in major units: `45.00` for 4500 cents. It is parsed and formatted digit by
//! digit, never as a float.

use domain::{Currency, Money};

use crate::limit::DECIMAL_CHARS_MAX;

/// Formats the amount as a JSON number, with the number of decimals of its currency (ISO 4217).
pub(crate) fn write(money: Money) -> String {
    let decimals = usize::from(decimals(money.currency()));
    let digits = format!("{:0>width$}", money.amount(), width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

/// Parses a JSON number, or a JSON string that contains one. The error describes the expected format.
pub(crate) fn read(text: &str, currency: Currency) -> Result<Money, String> {
    let decimals = decimals(currency);
    let text = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let minor = minor_units(text, decimals).ok_or_else(|| {
        format!("must be a decimal number of {} with at most {decimals} decimals", currency.code())
    })?;
    Money::new(minor, currency).map_err(|error| error.to_string())
}

fn decimals(currency: Currency) -> u16 {
    currency.exponent().unwrap_or(0)
}

/// Returns the number times ten to the power of `decimals`; `None` if that is not an integer.
fn minor_units(text: &str, decimals: u16) -> Option<i64> {
    if text.len() > DECIMAL_CHARS_MAX {
        return None;
    }
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let stripped = digits.len() - digits.trim_end_matches('0').len();
    let shift = i64::from(decimals) + i64::from(exponent) + i64::try_from(stripped).ok()?
        - i64::try_from(fraction.len()).ok()?;
    let power = 10_i64.checked_pow(u32::try_from(shift).ok()?)?;
    let minor = significant.parse::<i64>().ok()?.checked_mul(power)?;
    Some(if negative { -minor } else { minor })
}

#[cfg(test)]
mod tests {
    use domain::AMOUNT_MAX;
    use proptest::prelude::*;

    use super::*;

    fn currency(code: &str) -> Currency {
        code.parse().unwrap()
    }

    #[test]
    fn only_decimal_numbers_are_read() {
        for (text, code, minor) in [
            ("45", "EUR", 4_500),
            ("45.0", "EUR", 4_500),
            ("45.10", "EUR", 4_510),
            ("45.100000000000000000000000", "EUR", 4_510),
            ("\"45.10\"", "EUR", 4_510),
            ("4.51e1", "EUR", 4_510),
            ("4510E-2", "EUR", 4_510),
            ("0", "EUR", 0),
            ("-0.00", "EUR", 0),
            ("0e999", "EUR", 0),
            ("4500", "JPY", 4_500),
            ("1.234", "BHD", 1_234),
            ("10000000000.00", "EUR", 1_000_000_000_000),
        ] {
            assert_eq!(read(text, currency(code)).map(Money::amount), Ok(minor), "{text} {code}");
        }
        for (text, code) in [
            ("45.001", "EUR"),
            ("0.30000000000000004", "EUR"),
            ("1.5", "JPY"),
            ("-1", "EUR"),
            ("", "EUR"),
            ("\"\"", "EUR"),
            (".5", "EUR"),
            ("5.", "EUR"),
            ("1e400", "EUR"),
            ("1e99999", "EUR"),
            ("1e-99999", "EUR"),
            ("NaN", "EUR"),
            ("\"1 000\"", "EUR"),
            ("\"+1\"", "EUR"),
            ("true", "EUR"),
            ("[1]", "EUR"),
            ("99999999999999999999", "EUR"),
        ] {
            assert!(read(text, currency(code)).is_err(), "{text} {code}");
        }
    }

    proptest! {
        #[test]
        fn written_amounts_read_back_unchanged(amount in 0..=AMOUNT_MAX, code in "EUR|JPY|BHD|CLF|XAU") {
            let money = Money::new(amount, currency(&code)).unwrap();
            prop_assert_eq!(read(&write(money), money.currency()), Ok(money));
        }

        #[test]
        fn nothing_panics(text in "[-0-9.eE\"]{0,24}") {
            let _ = read(&text, currency("EUR"));
        }
    }
}
