<?php
namespace App;

/** What several services do, or else none: lictor makes the calls, and those that undo them, and another instance goes on where we end. */
class Saga
{
    /**
     * The step that was refused, so that all is undone; null: none.
     * @param array<string, array{string, string, array}> $steps of each name what is done, what undoes it, and the message that both get
     */
    public static function run(string $id, array $steps): ?string
    {
        $asked = ['id' => $id, 'steps' => []];
        foreach ($steps as $name => [$action, $compensation, $payload]) {
            $asked['steps'][] = ['service' => 'steps'] + compact('name', 'action', 'compensation', 'payload');
        }
        $curl = curl_init(getenv('LICTOR_ADDR') . '/v1/saga?wait=25s');
        curl_setopt_array($curl, [
            CURLOPT_HTTPHEADER => ['Authorization: Bearer ' . getenv('LICTOR_TOKEN'), 'Content-Type: application/json', ...Client::forwarded()],
            CURLOPT_POSTFIELDS => json_encode($asked),
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => 30,
        ]);
        $told = json_decode((string) curl_exec($curl), true);
        if (in_array(curl_getinfo($curl, CURLINFO_RESPONSE_CODE), [200, 202], true)) {
            return null; // it is done, or will be
        }
        error_log("saga $id: " . ($told['reason'] ?? $told['message'] ?? 'no answer'));
        // What nobody answered may have been done, and is undone too.
        $refused = array_diff($told['failed'] ?? [], $told['compensated'] ?? []);
        if (($told['status'] ?? '') !== 'failed' || !$refused) {
            throw new Failure('Not all services answer', Failure::UNAVAILABLE);
        }

        return reset($refused);
    }
}
