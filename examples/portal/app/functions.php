<?php
// The words that routes are written in.

use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;

/** The moment, as Laravel's `now()->toISOString()` writes it. */
function now(): string
{
    return (new DateTimeImmutable('now', new DateTimeZone('UTC')))->format('Y-m-d\TH:i:s.u\Z');
}

/** An answer that went well. */
function success(mixed $data, int $status = 200): JsonResponse
{
    return response()->json(['status' => 'success', 'data' => $data], $status);
}

/** The request's JSON or form, if it is as it should be; else 422 with what is wrong, or 400 where it is no text at all. */
function valid(Request $request, array $rules): array
{
    $asked = $request->all();
    array_walk_recursive($asked, fn ($value) => !is_string($value) || mb_check_encoding($value, 'UTF-8') ?: abort(400, 'The request is not UTF-8'));
    $texts = [
        'required' => ':attribute is required', 'string' => ':attribute is no text', 'integer' => ':attribute is no integer', 'array' => ':attribute is no list',
        'email' => ':attribute is no address', 'date_format' => ':attribute is no date',
        'min' => ['numeric' => ':attribute is less than :min', 'string' => ':attribute is shorter than :min', 'array' => ':attribute is empty'],
        'max' => ['numeric' => ':attribute is more than :max', 'string' => ':attribute is longer than :max', 'array' => ':attribute has more than :max'],
    ];

    return app('validator')->make($asked, $rules, $texts)->validate();
}

/** Who asks, as the gateway says; services are asked by nobody else. */
function caller(Request $request): int
{
    return (int) $request->header('X-User-ID') ?: abort(401, 'Authentication required');
}
