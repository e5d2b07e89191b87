// A person at Firefox: FIREFOX PASSWORD LAST, then pairs of ADDRESS ANSWER.
//
// Goes to each address in a tab of its own, signs in where asked, presses the button of that answer on the consent
// page, and waits until the browser asked for the address LAST.
import puppeteer from 'puppeteer-core'

const [executablePath, password, last, ...pairs] = process.argv.slice(2)
const browser = await puppeteer.launch({ browser: 'firefox', executablePath, headless: true })
try {
  for (let index = 0; index < pairs.length; index += 2) {
    const [address, answer] = pairs.slice(index, index + 2)
    const page = await browser.newPage()
    page.setDefaultTimeout(30_000)
    page.setDefaultNavigationTimeout(30_000)
    await page.goto(address)
    if (await page.$('[name=password]')) {
      await page.type('[name=username]', 'demo')
      await page.type('[name=password]', password)
      await page.keyboard.press('Enter')
    }
    await page.waitForSelector(`[name=answer][value=${answer}]`)
    const came = page.waitForResponse(response => response.url().startsWith(last))
    await page.click(`[name=answer][value=${answer}]`)
    await came
  }
} finally {
  await browser.close()
}
