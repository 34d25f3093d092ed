<?php
// PHP's http:// streams (file_get_contents). Usage: php streams.php PLAN OUT
[, $plan, $out] = $argv;
foreach (file($plan, FILE_IGNORE_NEW_LINES) as $line) {
    [$number, $method, $url, $body, $headers] = explode("\t", $line);
    $http = ['method' => $method, 'ignore_errors' => true, 'timeout' => 60];
    $http['header'] = $headers === '-' ? [] : explode('|', $headers);
    if ($body !== '-') {
        $http['content'] = file_get_contents($body);
    }
    $text = file_get_contents($url, false, stream_context_create(['http' => $http]));
    file_put_contents("$out/$number.head", implode("\n", $http_response_header) . "\n");
    file_put_contents("$out/$number.body", $text);
}
