# Perl's HTTP::Tiny (in every Perl). Usage: perl http_tiny.pl PLAN OUT
use strict;
use warnings;
use HTTP::Tiny;

my ($plan, $out) = @ARGV;
my $client = HTTP::Tiny->new(keep_alive => 1, timeout => 60);
open(my $calls, '<', $plan) or die $!;
while (my $line = <$calls>) {
    chomp $line;
    my ($number, $method, $url, $body, $headers) = split /\t/, $line;
    my %options;
    for my $field ($headers eq '-' ? () : split /\|/, $headers) {
        my ($name, $value) = split /: /, $field, 2;
        push @{ $options{headers}{$name} }, $value;
    }
    if ($body ne '-') {
        open(my $file, '<:raw', $body) or die $!;
        local $/;
        $options{content} = <$file>;
    }
    my $answer = $client->request($method, $url, \%options);
    open(my $head, '>:raw', "$out/$number.head") or die $!;
    print $head "$answer->{status}\n";
    for my $name (keys %{ $answer->{headers} }) {
        my $value = $answer->{headers}{$name};
        print $head "$name: $_\n" for ref $value ? @$value : $value;
    }
    open(my $kept, '>:raw', "$out/$number.body") or die $!;
    print $kept $answer->{content};
}
