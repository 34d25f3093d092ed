<?php
// PHP's curl extension with one handle for all calls. Usage: php curl.php PLAN OUT
[, $plan, $out] = $argv;
$call = curl_init();
foreach (file($plan, FILE_IGNORE_NEW_LINES) as $line) {
    [$number, $method, $url, $body, $headers] = explode("\t", $line);
    curl_reset($call);
    $head = '';
    curl_setopt_array($call, [
        CURLOPT_URL => $url,
        CURLOPT_CUSTOMREQUEST => $method,
        CURLOPT_NOBODY => $method === 'HEAD',
        CURLOPT_HTTPHEADER => $headers === '-' ? [] : explode('|', $headers),
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_FOLLOWLOCATION => true,
        CURLOPT_HEADERFUNCTION => function ($_, $line) use (&$head) {
            $head .= $line;
            return strlen($line);
        },
    ]);
    if ($body !== '-') {
        curl_setopt($call, CURLOPT_POSTFIELDS, file_get_contents($body));
    }
    $text = curl_exec($call);
    file_put_contents("$out/$number.head", $text === false ? curl_error($call) : $head);
    file_put_contents("$out/$number.body", $text);
}
