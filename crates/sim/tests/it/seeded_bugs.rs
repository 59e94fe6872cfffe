//! Every guard, taken away alone or with the one that covers for it: somebody must notice.

use domain::sabotage::Guard;

#[test]
fn probe() {
    for guard in Guard::ALL {
        let found = sim::hunt(&[*guard], 300);
        match found {
            Some(report) => println!("{:24} seed {:4}  {}", guard.name(), report.seed, report.wrong[0]),
            None => println!("{:24} not found", guard.name()),
        }
    }
}
