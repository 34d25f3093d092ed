# Perl's LWP, which sends TE and names it in Connection. Usage: perl lwp.pl PLAN OUT
use strict;
use warnings;
use HTTP::Request;
use LWP::UserAgent;

my ($plan, $out) = @ARGV;
my $client = LWP::UserAgent->new(timeout => 60);
open(my $calls, '<', $plan) or die $!;
while (my $line = <$calls>) {
    chomp $line;
    my ($number, $method, $url, $body, $headers) = split /\t/, $line;
    my $request = HTTP::Request->new($method, $url);
    for my $field ($headers eq '-' ? () : split /\|/, $headers) {
        my ($name, $value) = split /: /, $field, 2;
        $request->push_header($name, $value);
    }
    if ($body ne '-') {
        open(my $file, '<:raw', $body) or die $!;
        local $/;
        $request->content(scalar <$file>);
    }
    my $answer = $client->request($request);
    open(my $head, '>:raw', "$out/$number.head") or die $!;
    print $head $answer->code . "\n";
    # What LWP adds about itself begins with Client-.
    $answer->headers->scan(sub { print $head "$_[0]: $_[1]\n" unless $_[0] =~ /^Client-/ });
    open(my $kept, '>:raw', "$out/$number.body") or die $!;
    print $kept $answer->content;
}
