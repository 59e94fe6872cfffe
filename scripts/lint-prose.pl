#!/usr/bin/perl
# Checks the text of the repository: comments, documents, messages and names. docs/style.md has the reasons.
#   - no word of the list below, in any case, in prose or as a part of a name
#   - no line over 110 columns, except tables, links and code blocks of Markdown, and values in TOML, where an
#     inline table is one line
#   - fewer than 60 comments that start with What, Whether, Who or Whose
# Prints each finding as FILE:LINE: TEXT and exits with status 1 if there is one.
use strict;
use warnings;
use open qw(:std :encoding(UTF-8));

my @REJECTED = ("told", "untold", "luck", "doomed", "bell", "graveyard", "town", "whoever", "anew", "in vain", "for ever");
my $COLUMNS_MAX = 110;
my $CLAUSES_MAX = 59;

# A migration is never edited once it has run, a fixture is what an earlier version wrote, and a locked list is
# written by its tool.
my $exempt = qr{^crates/store/migrations/|^scripts/lint-prose\.pl$|^crates/boxoffice/tests/upgrade/fixtures/|^LICENSE|\.lock$|-lock\.json$};
my $checked = qr{\.(?:rs|md|sql|lua|sh|pl|py|ts|toml|yml|css|ini|conf)$|^Makefile$|^\.ci/run$};

# A phrase may continue on the next line of a comment.
my $phrases = join "|", map { s/ /[\\s\/!*#-]+/gr } @REJECTED;
my $capitalised = join "|", map { ucfirst } grep { !/ / } @REJECTED;
my $rejected = qr{(?:(?<![A-Za-z])(?i:$phrases)|(?<=[a-z])(?:$capitalised))(?![a-z])};
my $clause = qr{^\s*(?://[/!]?|--|\#+)\s+(?:What|Whether|Who|Whose)\b};

my (@findings, @clauses);
for my $file (grep { $_ !~ $exempt && $_ =~ $checked } split /\0/, `git ls-files -z`) {
    open my $input, "<", $file or next;
    my $text = do { local $/; <$input> };
    while ($text =~ /$rejected/g) {
        my $line = 1 + (substr($text, 0, $-[0]) =~ tr/\n//);
        push @findings, "$file:$line: rejected: $&";
    }
    my ($number, $in_code) = (0, 0);
    for my $line (split /\n/, $text) {
        $number += 1;
        push @clauses, "$file:$number: clause: $line" if $line =~ $clause && $file !~ /\.md$/;
        $in_code = !$in_code if $file =~ /\.md$/ && $line =~ /^\s*```/;
        next if length $line <= $COLUMNS_MAX || $in_code;
        next if $file =~ /\.md$/ && $line =~ /^\s*\||\]\(|https?:/;
        next if $file =~ /\.toml$/ && $line !~ /^\s*#/;
        push @findings, "$file:$number: over $COLUMNS_MAX columns: $line";
    }
}
push @findings, @clauses if @clauses > $CLAUSES_MAX;
print "$_\n" for @findings;
exit(@findings ? 1 : 0);
