<?php
namespace App;

/**
 * A service's configuration: the JSON object of `config/SERVICE` in Consul's KV, as lictor tells it whenever it is another.
 * PHP has no place where a request could wait for that: watch.php does, and keeps what it is told in a file that requests read.
 */
class Config
{
    /** What it says, if that is of the default's type. */
    public static function get(string $name, mixed $default): mixed
    {
        $all = json_decode(@file_get_contents(self::file()) ?: 'null', true);
        $value = is_array($all) ? $all[$name] ?? null : null;

        return gettype($value) === gettype($default) ? $value : $default;
    }

    /** Until the stream ends: a comment comes every 15 s, so 40 s of silence are its end too. */
    public static function watch(): void
    {
        $curl = curl_init(getenv('LICTOR_ADDR') . '/v1/config/' . getenv('APP_NAME') . '?watch');
        $text = '';
        curl_setopt_array($curl, [
            CURLOPT_HTTPHEADER => ['Authorization: Bearer ' . getenv('LICTOR_TOKEN')],
            CURLOPT_FAILONERROR => true,
            CURLOPT_LOW_SPEED_LIMIT => 1,
            CURLOPT_LOW_SPEED_TIME => 40,
            CURLOPT_WRITEFUNCTION => function ($curl, string $bytes) use (&$text): int {
                $lines = explode("\n", $text . $bytes);
                $text = array_pop($lines);
                foreach (preg_replace('/^data: /', '', preg_grep('/^data: /', $lines)) as $told) {
                    self::keep(json_encode(json_decode($told, true)['value']));
                }

                return strlen($bytes);
            },
        ]);
        curl_exec($curl);
    }

    private static function keep(string $told): void
    {
        file_put_contents(self::file() . '.new', $told);
        rename(self::file() . '.new', self::file()); // who reads it has all of one or the other
        error_log("configuration: $told");
    }

    private static function file(): string
    {
        return getenv('RUN') . '/config.json';
    }
}
