<?php
// Products (`/api/products`), and the search for them. The gateway says who may change them.

use App\Store;
use Illuminate\Http\Request;

const PRODUCT = [
    'name' => 'required|string|max:200', 'description' => 'string|max:2000',
    'price' => 'required|integer|min:1|max:100000000', 'stock' => 'required|integer|min:0|max:100000000',
];

function product_by_id(int $id): array
{
    return Store::remembered("product:$id", fn () => Store::one('select * from products where id = ?', [$id])) ?? abort(404, "Product $id not found");
}

return function ($router): void {
    $router->get('/api/products', function (Request $request) {
        $asked = valid($request, ['after' => 'integer|min:0']);

        return success(Store::all('select * from products where id > ? order by id limit 50', [$asked['after'] ?? 0]));
    });

    $router->get('/api/products/search', function (Request $request) {
        $words = preg_split('/[\s\x00-\x1f]+/u', valid($request, ['q' => 'required|string|min:1|max:100'])['q'], -1, PREG_SPLIT_NO_EMPTY);
        // Each word is a text, whatever FTS5 would read in it.
        $query = implode(' ', array_map(fn ($word) => '"' . str_replace('"', '""', $word) . '" *', $words));

        return success(!$words ? [] : Store::all('select p.* from found join products p on p.id = found.rowid where found match ? order by rank limit 50', [$query]));
    });

    $router->get('/api/products/{id:[0-9]+}', fn ($id) => success(product_by_id((int) $id)));

    $router->post('/api/products', function (Request $request) {
        $new = valid($request, PRODUCT + ['sku' => 'required|string|max:40']);
        try {
            Store::all(
                'insert into products (sku, name, description, price, stock, created_at) values (?, ?, ?, ?, ?, ?)',
                [$new['sku'], $new['name'], $new['description'] ?? '', $new['price'], $new['stock'], now()],
            );
        } catch (PDOException $e) {
            $e->getCode() === '23000' ? abort(409, 'SKU is taken') : throw $e;
        }

        return success(product_by_id((int) Store::database()->lastInsertId()), 201);
    });

    $router->put('/api/products/{id:[0-9]+}', function (Request $request, $id) {
        $new = valid($request, PRODUCT);
        product_by_id((int) $id);
        Store::all(
            'update products set name = ?, description = ?, price = ?, stock = ? where id = ?',
            [$new['name'], $new['description'] ?? '', $new['price'], $new['stock'], $id],
        );
        Store::forget("product:$id");

        return success(product_by_id((int) $id));
    });

    $router->delete('/api/products/{id:[0-9]+}', function ($id) {
        product_by_id((int) $id);
        Store::all('delete from products where id = ?', [$id]);
        Store::forget("product:$id");

        return response('', 204);
    });
};
