<?php
namespace App;

use Google\Protobuf\Internal\Message;

/** Calls of other services, at the addresses that lictor gives: no discovery, balancing, breaker, retries or spans here. */
class Client
{
    /** What belongs to the call that is being answered, and goes along. */
    private const FORWARDED = ['traceparent', 'tracestate', 'x-request-id', 'x-request-timeout-ms', 'x-lictor-attempt'];

    /** `user-service`, `user.UserService/GetUser`, its request; what it answers is of this kind. */
    public static function call(string $service, string $method, Message $request, string $kind): Message
    {
        $status = ['grpc-status' => null, 'grpc-message' => ''];
        $headers = ['Content-Type: application/grpc', 'TE: trailers', 'Expect:'];
        foreach (self::FORWARDED as $name) {
            $value = $_SERVER['HTTP_' . strtoupper(strtr($name, '-', '_'))] ?? '';
            if ($value !== '') {
                $headers[] = "$name: $value";
            }
        }
        $curl = curl_init(getenv(strtoupper(strtr($service, '-', '_')) . '_URL') . "/$method");
        curl_setopt_array($curl, [
            CURLOPT_HTTP_VERSION => CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE,
            CURLOPT_HTTPHEADER => $headers,
            CURLOPT_POSTFIELDS => Frame::of($request),
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_IGNORE_CONTENT_LENGTH => true, // of Debian 12: it stops there, and the trailers are behind it
            CURLOPT_TIMEOUT => 35,
            CURLOPT_HEADERFUNCTION => function ($curl, string $line) use (&$status): int { // trailers come here too
                [$name, $value] = array_map('trim', explode(':', $line, 2)) + ['', ''];
                if (array_key_exists(strtolower($name), $status)) {
                    $status[strtolower($name)] = $value;
                }

                return strlen($line);
            },
        ]);
        $answer = curl_exec($curl);
        if ($answer === false || $status['grpc-status'] === null) {
            throw new Failure("$service gave no answer", Failure::UNAVAILABLE);
        }
        if ($status['grpc-status'] !== '0') {
            throw new Failure(rawurldecode($status['grpc-message']), (int) $status['grpc-status']);
        }

        return Frame::read($answer, $kind);
    }
}
