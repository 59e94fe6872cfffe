//! Money in whole minor units of one currency (ISO 4217). Arithmetic is checked; no floating-point numbers
//! are used.

use std::fmt;
use std::str::FromStr;

use crate::limit::AMOUNT_MAX;

/// A currency of ISO 4217, such as EUR.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(iso_currency::Currency);

/// An amount in minor units, 0 … [`AMOUNT_MAX`], of one currency. 4500 EUR cents are 45 euros; 4500 JPY are
/// 4500 yen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    amount: i64,
    currency: Currency,
}

/// The reason why an amount or a currency is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The code is not three upper-case letters of ISO 4217.
    #[error("must be a currency code of ISO 4217, in upper case")]
    Currency,
    /// Two amounts have different currencies.
    #[error("must have the same currency")]
    CurrencyMismatch,
    /// The amount is below 0, or above the maximum that every JSON parser represents exactly.
    #[error("must be between 0 and {AMOUNT_MAX} minor units")]
    Amount,
}

impl Currency {
    /// The three-letter code of the currency.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// The number of decimal digits of the minor unit: 2 for EUR, 0 for JPY, 3 for BHD. `None` if ISO 4217
    /// defines no minor unit (gold, testing codes).
    pub fn exponent(self) -> Option<u16> {
        self.0.exponent()
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(code: &str) -> Result<Self, MoneyError> {
        iso_currency::Currency::from_code(code).map(Self).ok_or(MoneyError::Currency)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Money {
    /// Creates an amount in minor units; fails below 0 or above [`AMOUNT_MAX`].
    pub fn new(amount: i64, currency: Currency) -> Result<Self, MoneyError> {
        if (0..=AMOUNT_MAX).contains(&amount) {
            Ok(Self { amount, currency })
        } else {
            Err(MoneyError::Amount)
        }
    }

    /// The amount in minor units, 0 … [`AMOUNT_MAX`].
    pub fn amount(self) -> i64 {
        self.amount
    }

    /// The currency of the amount.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// The price of `quantity` tickets at this price; fails above [`AMOUNT_MAX`].
    pub fn times(self, quantity: u32) -> Result<Self, MoneyError> {
        let amount = self.amount.checked_mul(i64::from(quantity)).ok_or(MoneyError::Amount)?;
        Self::new(amount, self.currency)
    }

    /// The sum of two amounts; fails above [`AMOUNT_MAX`] or if the currencies differ.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch);
        }
        Self::new(self.amount.checked_add(other.amount).ok_or(MoneyError::Amount)?, self.currency)
    }
}

/// Writes the minor units and the currency code: `4500 EUR`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount, self.currency.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn eur(amount: i64) -> Result<Money, MoneyError> {
        Money::new(amount, "EUR".parse().unwrap())
    }

    #[test]
    fn currency_codes_and_exponents_follow_iso_4217() {
        for (code, exponent) in [("EUR", 2), ("JPY", 0), ("BHD", 3)] {
            assert_eq!(code.parse::<Currency>().unwrap().exponent(), Some(exponent), "{code}");
        }
        for code in ["", "eur", "EURO", "ABC", "EU", "€"] {
            assert_eq!(code.parse::<Currency>(), Err(MoneyError::Currency), "{code}");
        }
    }

    proptest! {
        #[test]
        fn arithmetic_is_checked(a in any::<i64>(), b in any::<i64>(), n in any::<u32>()) {
            let exact = |value: i128| (0..=i128::from(AMOUNT_MAX)).contains(&value);
            prop_assert_eq!(eur(a).is_ok(), exact(a.into()));
            if let (Ok(x), Ok(y)) = (eur(a), eur(b)) {
                prop_assert_eq!(x.plus(y).is_ok(), exact(i128::from(a) + i128::from(b)));
                prop_assert_eq!(x.times(n).is_ok(), exact(i128::from(a) * i128::from(n)));
            }
        }

        #[test]
        fn products_are_exact(a in 0..=AMOUNT_MAX, n in 0u32..1000) {
            if let Ok(product) = eur(a).unwrap().times(n) {
                prop_assert_eq!(product.amount(), a * i64::from(n));
            }
        }
    }
}
