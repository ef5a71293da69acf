<?php
// Orders (`/api/orders`): each is of a user, and of products that are there.

use App\Calls;
use App\Store;
use Illuminate\Http\Request;

/** An order of whoever asks; others' are not there. */
function order_by_id(int $id, int $user): array
{
    $order = Store::one('select * from orders where id = ? and user_id = ?', [$id, $user]) ?? abort(404, 'Order not found');

    return $order + ['items' => Store::all('select product_id, name, price, quantity from items where order_id = ? order by rowid', [$id])];
}

return function ($router): void {
    $router->get('/api/orders', fn (Request $request) => success(Store::all('select * from orders where user_id = ? order by id desc limit 100', [caller($request)])));

    $router->get('/api/orders/{id:[0-9]+}', fn (Request $request, $id) => success(order_by_id((int) $id, caller($request))));

    $router->post('/api/orders', function (Request $request) {
        $asked = valid($request, [
            'items' => 'required|array|min:1|max:20',
            'items.*.product_id' => 'required|integer|min:1',
            'items.*.quantity' => 'required|integer|min:1|max:10000',
        ]);
        $user = Calls::user(caller($request));
        $items = [];
        foreach ($asked['items'] as $item) {
            $product = Calls::product($item['product_id']);
            if ($product['stock'] < $item['quantity']) {
                abort(409, "Insufficient stock of {$product['name']}");
            }
            $items[] = [$product['id'], $product['name'], $product['price'], (int) $item['quantity']];
        }
        $id = Store::together(function ($database) use ($user, $items) {
            $total = array_sum(array_map(fn ($item) => $item[2] * $item[3], $items));
            Store::all('insert into orders (user_id, status, total, created_at) values (?, ?, ?, ?)', [$user['id'], 'pending', $total, now()]);
            $id = (int) $database->lastInsertId();
            foreach ($items as $item) {
                Store::all('insert into items values (?, ?, ?, ?, ?)', [$id, ...$item]);
            }

            return $id;
        });

        return success(order_by_id($id, $user['id']), 201);
    });

    $router->post('/api/orders/{id:[0-9]+}/cancel', function (Request $request, $id) {
        $order = order_by_id((int) $id, caller($request));
        if ($order['status'] !== 'pending') {
            abort(409, "The order is {$order['status']}");
        }
        Store::all("update orders set status = 'cancelled' where id = ? and status = 'pending'", [$id]);

        return success(order_by_id((int) $id, caller($request)));
    });
};
